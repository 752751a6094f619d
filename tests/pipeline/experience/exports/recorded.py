"""Random episodes of any spaces, recorded and compacted as a server's would be, with the truth to compare with."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.environments.nested_spaces import stack
from pipeline.experience.compaction.run import CompactOptions, compact
from pipeline.experience.progress import StageProgress
from pipeline.experience.whole_episodes import WholeEpisodes
from serving.experience.store import Store, open_store
from serving.policy.bundle import Bundle
from serving.policy.spaces import leaves, space_to_json
from tests.pipeline.experience.recording import (
    HASH,
    MODEL,
    NOW_NS,
    Decision,
    Feedback,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)


@dataclass
class Truth:
    """An episode as the client saw it."""

    name: str
    observations: list[Any]
    """One more than actions."""
    actions: list[Any]
    rewards: list[float]
    done: str = "terminated"
    version: int = 1
    reports_final: bool = True
    reports_rewards: bool = True
    lost_steps: set[int] = field(default_factory=set)
    """Steps whose decisions were not recorded."""

    @property
    def id(self) -> str:
        return HASH(self.name).hex()

    def __len__(self) -> int:
        return len(self.actions)


def random_episode(name: str, observation_space: Any, action_space: Any, length: int, **changes: Any) -> Truth:
    """An episode of random observations and actions."""
    observation_space.seed(sum(name.encode()))
    action_space.seed(length)
    rewards = np.random.default_rng(length).normal(size=length).tolist()
    observations = [observation_space.sample() for _ in range(length + 1)]
    actions = changes.pop("actions", None) or [action_space.sample() for _ in range(length)]
    return Truth(name, observations, actions, rewards, **changes)


def record(store: Store, truths: list[Truth], observation_space: Any, action_space: Any, **changes: Any) -> None:
    """Write the raw tables of the episodes."""
    spaces = (("observations", observation_space), ("action", action_space))
    inputs, outputs = (
        tuple((leaf.tensor(root), np.dtype(leaf.space.dtype).str, leaf.space.shape or ()) for leaf in leaves(space))
        for root, space in spaces
    )
    tables = []
    for version in sorted({truth.version for truth in truths}):
        mine = [truth for truth in truths if truth.version == version]
        decisions = [each for truth in mine for each in decisions_of(truth, observation_space, action_space)]
        tables.append(decision_table(spec(version, inputs, outputs), decisions, **changes))
    write_segment(store, tables, feedback_table([feedback_of(truth, observation_space) for truth in truths]))


def decisions_of(truth: Truth, observation_space: Any, action_space: Any) -> list[Decision]:
    inputs = [rows(observation_space, "observations", value) for value in truth.observations]
    outputs = [rows(action_space, "action", value) for value in truth.actions]
    return [
        Decision(truth.name, step, 1000.0 - step, inputs[step], outputs[step], logp=-0.5 * step)
        for step in range(len(truth))
        if step not in truth.lost_steps
    ]


def feedback_of(truth: Truth, observation_space: Any) -> Feedback:
    rewards = dict(enumerate(truth.rewards)) if truth.reports_rewards else {}
    final = rows(observation_space, "observations", truth.observations[-1]) if truth.reports_final else None
    return Feedback(truth.name, 500.0, rewards, sum(truth.rewards), len(truth), truth.done, final)


def rows(space: Any, root: str, value: Any) -> dict[str, Any]:
    """The arrays of one value by their tensors' names."""
    return {name: array[0] for name, array in stack(space, [value], root).items()}


def whole_episodes(
    uri: Any, truths: list[Truth], observation_space: Any, action_space: Any, **options: Any
) -> WholeEpisodes:
    """Record and compact episodes."""
    store = open_store(str(uri))
    record(store, truths, observation_space, action_space)
    return compacted(store, **options)


def compacted(store: Store, **options: Any) -> WholeEpisodes:
    with StageProgress() as progress:
        compact(store, MODEL, CompactOptions(**options), progress, NOW_NS)
    return WholeEpisodes.open(store, MODEL)


def bundle_of(observation_space: Any, action_space: Any, environment: str = "CartPole-v1") -> Bundle:
    """A bundle that declares these spaces; its graph is none."""
    spaces = {"observation_space": space_to_json(observation_space), "action_space": space_to_json(action_space)}
    policy = {"format": 1, "environment": {"id": environment, "kwargs": {}}, **spaces}
    return Bundle(b"no graph", json.dumps(policy).encode())
