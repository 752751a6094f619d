"""Importance weights: how much more often the target takes the recorded actions than the versions that took them.

The server answers an episode of a version either greedily or with samples. What happened in one episode is therefore
explained by a mixture of two behaviours, whose shares are those of the version's episodes. After the actions a_0..a_t,
the mixture has the probability

    P_t = share_sampled * p(a_0) * ... * p(a_t) + share_greedy * [all of a_0..a_t are greedy]

and the cumulative weight of a target with the probabilities q is q(a_0) * ... * q(a_t) / P_t (the balance heuristic of
Veach and Guibas 1995). A greedy episode thus counts as long as the target agrees with it.

The target *leaves the support* with an action that it takes more than MAX_RATIO times as often as the mixture does.
Such an action has the weight 0, and the probability with which the target takes any of them is accounted for as `lost`.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.ope.statistics.distributions import ActionDistribution
from pipeline.ope.statistics.logs import Bools, Floats, Logs

MAX_RATIO = 100.0
MAX_UNSUPPORTED = 0.05
"""The share of the target's steps up to which it counts as supported."""

_NEVER = -np.inf


@dataclass(frozen=True)
class TargetActions:
    """What the target would do in recorded states.

    Attributes:
        actions: `[states, k, columns]` coded actions that stand for its distribution.
        weights: `[states, k]` their weights, which sum up to 1.
        log_prob: `[states, k]` the logarithms of their probabilities or densities.
        taken: `[steps]` those of the recorded actions.
    """

    actions: Floats
    weights: Floats
    log_prob: Floats
    taken: Floats


@dataclass(frozen=True)
class Weights:
    """The weights of the steps of some episodes for one target.

    Attributes:
        active: `[episodes]`: the episodes that count. The others have no weight: their versions do not support the
            target.
        before: `[steps]`: the cumulative weight before the step's action.
        after: `[steps]`: the cumulative weight with it.
        lost: `[steps, k]`: which candidates of the target leave the support.
        lost_share: `[steps]`: their probability.
    """

    active: Bools
    before: Floats
    after: Floats
    lost: Bools
    lost_share: Floats

    def unsupported(self, logs: Logs, episodes: Bools) -> float:
        """Return the share of the target's steps in some episodes at which it leaves the support."""
        rows = episodes[logs.episode]
        total = float(self.before[rows].sum())
        return float((self.before * self.lost_share)[rows].sum()) / total if total else 1.0

    def final(self, logs: Logs) -> Floats:
        """Return the weight of each active episode, `[active episodes]`."""
        last: Floats = self.after[logs.starts + logs.lengths - 1][self.active]
        return last

    def effective_episodes(self, logs: Logs) -> float:
        """Return the effective sample size, (sum w)^2 / sum w^2, of the active episodes (Kish 1965)."""
        final = self.final(logs)
        squares = float((final**2).sum())
        return float(final.sum()) ** 2 / squares if squares else 0.0


def weigh(logs: Logs, target: TargetActions, distribution: ActionDistribution) -> Weights:
    """Return the weights of recorded steps for a target.

    Episodes of versions that do not support it are not active, unless there are no others.
    """
    active = np.ones(logs.episodes, np.bool_)
    if not distribution.is_discrete and logs.explored.any():
        active = logs.explored  # a density has no weight for single greedy actions
    found = _weights(logs, target, distribution, active)
    supported = np.zeros(logs.episodes, np.bool_)
    for version in np.unique(logs.versions[active]):
        own = active & (logs.versions == version)
        if found.unsupported(logs, own) <= MAX_UNSUPPORTED:
            supported |= own
    if supported.any():
        active = supported
    rows = active[logs.episode]
    return replace(found, active=active, before=np.where(rows, found.before, 0), after=np.where(rows, found.after, 0))


def _weights(logs: Logs, target: TargetActions, distribution: ActionDistribution, active: Bools) -> Weights:
    behaviour = _Mixture(logs, distribution, active)
    log_ratio = target.taken - behaviour.taken
    ends = (log_ratio > np.log(MAX_RATIO)) | (target.taken == _NEVER) | ~active[logs.episode]
    log_weight = logs.cumulative(np.where(ends, 0.0, log_ratio))
    after = np.where(logs.cumulative(ends.astype(np.float64)) > 0, 0.0, np.exp(np.minimum(log_weight, 700.0)))
    before = logs.before(after, active.astype(np.float64))
    count = target.actions.shape[1]
    lost = np.empty((logs.steps, count), np.bool_)
    for index in range(count):
        log_prob = target.log_prob[: logs.steps, index]
        lost[:, index] = log_prob - behaviour.of(target.actions[: logs.steps, index]) > np.log(MAX_RATIO)
    lost_share = (target.weights[: logs.steps] * lost).sum(axis=1)
    return Weights(active, before, after, lost, lost_share)


class _Mixture:
    """The probabilities of actions under a version's mixture of sampled and greedy episodes, given those before."""

    def __init__(self, logs: Logs, distribution: ActionDistribution, active: Bools) -> None:
        self._logs, self._distribution = logs, distribution
        self._greedy = np.where(logs.explored[logs.episode, np.newaxis], distribution.greedy(logs.inputs), logs.actions)
        sampled, greedy = self._shares(active)
        log_sampled = distribution.log_prob(logs.inputs, logs.actions)
        departed = logs.cumulative((~self._is_greedy(logs.actions)).astype(np.float64)) > 0
        after_sampled = sampled + logs.cumulative(log_sampled)
        after_greedy = np.where(departed, _NEVER, greedy)
        self._sampled = logs.before(after_sampled, sampled[logs.starts])
        self._still_greedy = logs.before(after_greedy, greedy[logs.starts])
        self._total = np.logaddexp(self._sampled, self._still_greedy)
        self.taken: Floats = np.logaddexp(after_sampled, after_greedy) - self._total
        """`[steps]`: the logarithms of the probabilities of the recorded actions."""

    def of(self, actions: Floats) -> Floats:
        """Return the logarithms of the probabilities of actions `[steps, columns]`."""
        sampled = self._sampled + self._distribution.log_prob(self._logs.inputs, actions)
        greedy = np.where(self._is_greedy(actions), self._still_greedy, _NEVER)
        with np.errstate(invalid="ignore"):
            found: Floats = np.logaddexp(sampled, greedy) - self._total
        return found

    def _is_greedy(self, actions: Floats) -> Bools:
        same: NDArray[np.bool_] = (actions == self._greedy).all(axis=1)
        return same

    def _shares(self, active: Bools) -> tuple[Floats, Floats]:
        """Return the logarithms of the shares of sampled and greedy episodes in the version of each step."""
        logs, sampled = self._logs, np.zeros(self._logs.episodes)
        for version in np.unique(logs.versions):
            own = active & (logs.versions == version)
            if own.any():
                sampled[logs.versions == version] = logs.explored[own].mean()
        rows = sampled[logs.episode]
        with np.errstate(divide="ignore"):
            return np.log(rows), np.log1p(-rows)
