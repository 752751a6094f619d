"""Estimates of a target's value from weighted episodes, each with the influence of every episode on it.

An estimate is a sum of ratios of means over the episodes. Its influence function is the first-order effect of each
episode: the mean of the influences is 0, and their variance over the number of episodes is that of the estimate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.ope.statistics.logs import Bools, Floats, Logs
from pipeline.ope.statistics.weights import Weights


@dataclass(frozen=True)
class Estimate:
    """An estimate of a mean return.

    Attributes:
        value: The estimate.
        influence: `[episodes]`: the influence of each episode.
    """

    value: float
    influence: Floats

    @property
    def variance(self) -> float:
        """The variance of the estimate; that of a single episode is unknown."""
        count = len(self.influence)
        return float(self.influence.var(ddof=1)) / count if count > 1 else math.inf

    @property
    def standard_error(self) -> float:
        """The standard deviation of the estimate."""
        return math.sqrt(self.variance)

    def __sub__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.value - other.value, self.influence - other.influence)


@dataclass(frozen=True)
class Values:
    """What a model says about the steps of recorded episodes.

    Attributes:
        q: `[steps]`: the value of the recorded action.
        v: `[steps]`: the target's value, without the actions that leave the support.
    """

    q: Floats
    v: Floats


def mean_return(logs: Logs, gamma: float) -> Estimate:
    """Return the mean of the recorded returns."""
    returns = np.bincount(logs.episode, gamma**logs.t * logs.rewards, minlength=logs.episodes)
    return Estimate(float(returns.mean()), returns - returns.mean())


def per_decision(logs: Logs, weights: Weights, gamma: float) -> Estimate:
    """Return the self-normalized per-decision importance sampling estimate (Precup, Sutton and Singh 2000).

    The weighted mean reward of each step, over all episodes: those that are over keep their weight and earn 0.
    """
    ratios = _Ratios(logs, weights.active, gamma)
    ratios.add(weights.after * logs.rewards, weights.after, weights.after)
    return ratios.estimate


def weighted_doubly_robust(logs: Logs, weights: Weights, values: Values, gamma: float, beyond: float) -> Estimate:
    """Return the weighted doubly robust estimate (Thomas and Brunskill 2016).

    It is right if the weights are, however wrong the model's values are; good values make it less uncertain.

    Args:
        logs: Recorded episodes.
        weights: Their weights.
        values: The model's values of their steps, from models that did not see the episode.
        gamma: The discount factor.
        beyond: What the target returns from a step on at which it leaves the support.
    """
    lost = weights.before * weights.lost_share
    lost_after = logs.cumulative(lost)
    before, after = weights.before + lost_after - lost, weights.after + lost_after
    ratios = _Ratios(logs, weights.active, gamma)
    ratios.add(weights.before * values.v + lost * beyond, before, after)
    ratios.add(weights.after * (logs.rewards - values.q), after, after)
    return ratios.estimate


class _Ratios:
    """A sum over the steps t of gamma**t * sum(numerators) / sum(denominators), and its influence function."""

    def __init__(self, logs: Logs, active: Bools, gamma: float) -> None:
        self._logs, self._active = logs, active
        self._discounts = np.power(gamma, np.arange(logs.horizon, dtype=np.float64))
        self._value = 0.0
        self._influence = np.zeros(logs.episodes)

    @property
    def estimate(self) -> Estimate:
        """The estimate, with influences that are 0 for episodes that are not active."""
        return Estimate(self._value, self._influence)

    def add(self, numerators: Floats, denominators: Floats, after: Floats) -> None:
        """Add ratios of `[steps]`. An episode that is over has the numerator 0 and its last `after` as denominator."""
        logs = self._logs
        active = self._active[logs.episode]
        numerators, denominators, after = (np.where(active, each, 0) for each in (numerators, denominators, after))
        last = after[logs.starts + logs.lengths - 1]
        over = np.cumsum(_sums(logs.lengths, last, logs.horizon + 1))[:-1]
        total = _sums(logs.t, denominators, logs.horizon) + over
        means = np.divide(_sums(logs.t, numerators, logs.horizon), total, out=np.zeros_like(total), where=total > 0)
        scale = np.divide(logs.episodes * self._discounts, total, out=np.zeros_like(total), where=total > 0)
        effects = scale[logs.t] * (numerators - means[logs.t] * denominators)
        remaining = np.append(np.cumsum((scale * means)[::-1])[::-1], 0.0)
        self._value += float((self._discounts * means).sum())
        self._influence += np.bincount(logs.episode, effects, minlength=logs.episodes)
        self._influence -= last * remaining[logs.lengths]


def _sums(places: NDArray[np.int64], values: Floats, size: int) -> Floats:
    return np.bincount(places, values, minlength=size).astype(np.float64)


def combined(estimates: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates with models of several seeds, whose influences cover their differences as well.

    The variance is the mean of variance / episodes + (estimate - mean)^2 (Chernozhukov et al. 2018, definition 3.3).
    """
    values = np.array([each.value for each in estimates])
    influence = np.mean([each.influence for each in estimates], axis=0)
    variance = np.mean([each.variance for each in estimates]) + values.var()
    mean = Estimate(float(values.mean()), influence)
    return Estimate(mean.value, influence * (math.sqrt(variance / mean.variance) if mean.variance > 0 else 1.0))
