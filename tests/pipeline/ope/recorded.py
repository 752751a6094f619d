"""Small registered policies, and recorded episodes of them, as a server would record them.

An episode has two steps. Each observation is four random numbers, and the reward is 1 for action 1 where the first
number is positive, and for action 0 where it is negative.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from serving.policy.bundle import Bundle
from tests.pipeline.experience.recording import (
    Decision,
    Feedback,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)
from tests.serving.policies import LOGP, Tensor, model, policy_json

_STEPS = 2


def policy(weight, **description):
    """Return a bundle whose action follows the first number of the observation, the more the higher the weight."""
    weights = np.zeros((4, 2), np.float32)
    weights[0] = -weight / 2, weight / 2
    graph = model(
        [
            "action_dist_inputs = MatMul(observations, weights)",
            "perturbed = Add(action_dist_inputs, noise)",
            "action = ArgMax <axis = 1, keepdims = 0> (perturbed)",
            LOGP,
        ],
        [Tensor("observations", (4,)), Tensor("noise", (2,))],
        [Tensor("action", dtype=np.int64), Tensor("action_dist_inputs", (2,)), Tensor("action_logp")],
        weights=weights,
        last=np.array([1]),
    )
    return Bundle(graph, policy_json(noise=[{"distribution": "gumbel", "size": 2}], **description))


def record(store, weight, episodes, *, version=1, greedy_share=0.0, rewards=True, done="truncated", flags=0):
    """Write the decisions and the reports of episodes of `policy(weight)`."""
    generator = np.random.default_rng(version)
    decisions, events, inputs = [], [], []
    for number in range(episodes):
        name, explored = f"{version}-{number}", generator.random() >= greedy_share
        earned = {}
        for step in range(_STEPS):
            observation = generator.normal(size=4).astype(np.float32)
            logits = np.array([-weight / 2, weight / 2]) * observation[0]
            logp = logits - np.log(np.exp(logits).sum())
            action = int(generator.random() < np.exp(logp[1])) if explored else int(logits[1] > logits[0])
            shown = np.zeros(16, np.uint8) if flags else observation
            decision = Decision(name, step, 9000.0 - step, {"observations": shown}, {"action": action})
            decisions.append(replace(decision, explored=explored, logp=float(logp[action])))
            inputs.append(logits.astype(np.float32))
            earned[step] = float(action == (observation[0] > 0))
        events.append(Feedback(name, 8000.0, earned if rewards else {}, None, _STEPS, done))
    table = decision_table(spec(version), decisions, segment=version, flags=flags)
    place = table.schema.get_field_index("action_dist_inputs")
    column = pa.array([each.tolist() for each in inputs], table.schema.field(place).type)
    table = table.set_column(place, table.schema.field(place), column)
    write_segment(store, [table], feedback_table(events, segment=version), segment=version)
