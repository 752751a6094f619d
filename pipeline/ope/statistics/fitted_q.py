"""Fitted Q evaluation (Le, Voloshin and Yue 2019): the target's value from a model of what follows from an action.

Each iteration regresses the reward plus the value of the next state, as of the iteration before, on the state and the
action. After k iterations the model is the value of the k steps that remain. Episodes have at most as many steps as the
longest that was recorded, so step t has the model of horizon - t iterations; no discount is needed to make it converge.

The models are linear: in an indicator for each pair of a state and an action where both are few, else in random Fourier
features (Rahimi and Recht 2007). So an iteration is two products of matrices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ope.statistics.estimators import Values
from pipeline.ope.statistics.features import Features, features_of
from pipeline.ope.statistics.logs import NOTHING, UNKNOWN, Bools, Floats, Ints, Logs
from pipeline.ope.statistics.weights import TargetActions

SEEDS = 5
_FOLDS = 2


@dataclass(frozen=True)
class Fitted:
    """The models of all seeds.

    Attributes:
        values: Of each seed: the values of the recorded steps, from models that did not see the episode.
        estimates: `[seeds]`: the target's mean return from the first states of the episodes.
    """

    values: tuple[Values, ...]
    estimates: Floats


def fit(
    logs: Logs,
    target: TargetActions,
    lost: NDArray[np.bool_],
    choice_sizes: list[int | None],
    gamma: float,
    advance: Callable[[], None] = lambda: None,
) -> Fitted:
    """Fit models of the target's value, and apply each to the episodes that it did not see.

    Args:
        logs: Recorded episodes.
        target: What the target does in their states.
        lost: `[steps, k]`: which of its candidates leave the support; the values are without these.
        choice_sizes: Of `ActionDistribution`.
        gamma: The discount factor.
        advance: Is called after each of the SEEDS.
    """
    values, estimates = [], np.zeros(SEEDS)
    supported = target.weights[: logs.steps] * ~lost
    for seed in range(SEEDS):
        q, v = np.zeros(logs.steps), np.zeros(logs.steps)
        generator = np.random.default_rng(seed)
        features = features_of(logs, choice_sizes, generator)
        fold = generator.permutation(np.arange(logs.episodes) % _FOLDS)
        first = np.zeros(logs.episodes)
        for held_out in range(_FOLDS):
            seen = fold != held_out if logs.episodes > 1 else np.ones(1, np.bool_)
            model = _Model.fit(logs, target, features, seen, gamma, generator)
            rows = np.flatnonzero(~seen[logs.episode])
            q[rows], v[rows] = model.q(rows), model.v(rows, supported[rows])
            starts = logs.starts[~seen]
            first[~seen] = model.v(starts, target.weights[starts])
        values.append(Values(q, v))
        estimates[seed] = first.mean()
        advance()
    return Fitted(tuple(values), estimates)


@dataclass(frozen=True)
class _Model:
    """The parameters of all iterations: those of row k have the value of the k + 1 steps that remain."""

    logs: Logs
    target: TargetActions
    features: Features
    thetas: Floats
    offsets: Floats
    low: Floats
    high: Floats

    @classmethod
    def fit(
        cls,
        logs: Logs,
        target: TargetActions,
        features: Features,
        seen: Bools,
        gamma: float,
        generator: np.random.Generator,
    ) -> "_Model":
        """Fit a model to the steps of the episodes that it sees."""
        rows = np.flatnonzero(seen[logs.episode] & (logs.next_state != UNKNOWN))
        data = features.regression(logs, target, rows, generator)
        follows = (data.next_state != NOTHING) * gamma
        thetas, offsets = np.zeros((logs.horizon, features.size)), np.zeros(logs.horizon)
        bounds = np.cumsum(gamma ** np.arange(logs.horizon))
        low, high = min(logs.rewards.min(), 0.0) * bounds, max(logs.rewards.max(), 0.0) * bounds
        value = np.zeros(len(data.rewards))
        shares = data.counts / max(1.0, data.counts.sum())
        for k in range(logs.horizon):
            goal = data.rewards + follows * value
            offsets[k] = shares @ goal
            thetas[k] = data.solve(goal - offsets[k])
            value = np.clip(offsets[k] + data.following @ thetas[k], low[k], high[k])
        return cls(logs, target, features, thetas, offsets, low, high)

    def q(self, rows: Ints) -> Floats:
        """Return the values of the recorded actions of some steps."""
        return self._values(rows, self.logs.actions[rows, np.newaxis])[:, 0]

    def v(self, rows: Ints, weights: Floats) -> Floats:
        """Return the weighted sums `[rows]` of the values of the target's actions, with weights `[rows, k]`."""
        total: Floats = (weights * self._values(rows, self.target.actions[rows])).sum(axis=1)
        return total

    def _values(self, rows: Ints, actions: Floats) -> Floats:
        """Return the values of actions `[rows, k, columns]`, within what the remaining steps can return."""
        k = self.logs.horizon - 1 - self.logs.t[rows]
        values = self.features.apply(self.logs, rows, actions, self.thetas, k) + self.offsets[k, np.newaxis]
        return np.clip(values, self.low[k, np.newaxis], self.high[k, np.newaxis])
