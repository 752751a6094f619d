"""What a version would do in recorded states, computed by its graph as it is served."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ope.errors import DistributionUnknown, RecurrentTarget
from pipeline.ope.statistics.distributions import ActionDistribution
from pipeline.ope.statistics.logs import Logs
from pipeline.ope.statistics.weights import TargetActions
from serving.policy.policy import Policy
from serving.policy.spaces import leaves
from serving.policy.tensors import ACTION, ACTION_DIST_INPUTS, OBSERVATIONS

_BATCH_ROWS = 4096
_BATCH_BYTES = 4 << 20
"""The most observations, and bytes of them, that the graph computes at once."""


@dataclass(frozen=True)
class Target:
    """A version to judge.

    Attributes:
        model: The registered model.
        version: The number of the version.
        policy: Its policy.
        sampled: Whether its actions are sampled; else they are greedy, as a server answers by default.
    """

    model: str
    version: int
    policy: Policy
    sampled: bool = False

    @property
    def has_weights(self) -> bool:
        """Whether importance weights exist: the density of any single action has none."""
        return self.sampled or ActionDistribution(self.policy.action_space).is_discrete

    def check(self) -> None:
        """Raise RecurrentTarget or DistributionUnknown if its actions cannot be computed."""
        if self.policy.interface.state_shapes:
            raise RecurrentTarget(self.model, self.version)
        if self.sampled and ACTION_DIST_INPUTS not in self.policy.details:
            raise DistributionUnknown(self.model, self.version)

    def actions(self, logs: Logs, advance: Callable[[int], None] = lambda _: None) -> TargetActions:
        """Return what it does in all states of the logs. `advance` is called with the states of each batch."""
        distribution = ActionDistribution(self.policy.action_space)
        if not self.sampled:
            return _greedy(logs, distribution.coded(self._run(logs, self._action_names, advance)))
        inputs = self._run(logs, [ACTION_DIST_INPUTS], advance)[0].astype(np.float64)
        inputs = inputs.reshape(len(inputs), -1)
        candidates, weights = distribution.candidates(inputs, np.random.default_rng(0))
        per_candidate = (distribution.log_prob(inputs, candidates[:, k]) for k in range(candidates.shape[1]))
        log_prob = np.stack(list(per_candidate), axis=1)
        return TargetActions(candidates, weights, log_prob, distribution.log_prob(inputs[: logs.steps], logs.actions))

    @property
    def _action_names(self) -> list[str]:
        return [leaf.tensor(ACTION) for leaf in leaves(self.policy.action_space)]

    def _run(self, logs: Logs, outputs: list[str], advance: Callable[[int], None]) -> list[NDArray[Any]]:
        """Return outputs of the graph for all states, `[states, ...]` each."""
        names = [leaf.tensor(OBSERVATIONS) for leaf in leaves(self.policy.observation_space)]
        states = len(logs.states[0])
        row_bytes = sum(each.nbytes for each in logs.states) // states
        size = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))
        parts = []
        for at in range(0, states, size):
            tensors = {name: each[at : at + size] for name, each in zip(names, logs.states, strict=True)}
            parts.append(self.policy.run(tensors, outputs))
            advance(min(size, states - at))
        return [np.concatenate([part[name] for part in parts]) for name in outputs]


def _greedy(logs: Logs, actions: NDArray[np.float64]) -> TargetActions:
    agrees = (actions[: logs.steps] == logs.actions).all(axis=1)
    ones, never = np.ones((len(actions), 1)), np.full(logs.steps, -np.inf)
    return TargetActions(actions[:, np.newaxis], ones, np.zeros_like(ones), np.where(agrees, 0.0, never))
