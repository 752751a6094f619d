"""Compares live episodes with the reference: a permutation test over whole episodes, for all dimensions together.

If nothing has changed, the episodes of the reference and the live ones come from the same source, and which of them are
"live" is a matter of chance. So the statistics of the actual division are compared with those of random divisions of
all episodes into two groups of the same sizes. That holds for any number of episodes in either group, and so accounts
for the error of the reference. The largest standardized statistic of each division, over all dimensions, gives one
threshold for all (maxT of Westfall and Young 1993): the probability of any false alarm is at most alpha.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.drift.histograms import Histogram
from pipeline.reference.reference import Reference
from pipeline.reference.sketches import Sketches

ALL_STEPS, FIRST_STEP = "all steps", "first step"

_DIVISIONS_PER_ALPHA = 20
_MIN_DIVISIONS = 1000
_MIN_DIVISIONS_PER_ALPHA = 5
_MAX_NUMBERS = 1e7
"""The elements of the matrix of divisions, and of that of the statistics, above which there are fewer divisions."""
_STATISTICS = 4
"""Of each dimension: two in all steps, and two in the first step."""

_NOTHING = 1e-9
"""A standard deviation below this is rounding: the statistic is the same in all divisions."""
_TIED = 1e-6
"""Standardized statistics that differ by less are equal: they differ by rounding alone, as those of few episodes do."""


@dataclass(frozen=True)
class Statistic:
    """A statistic of the actual division, and the value above which it alarms (infinite if it cannot)."""

    value: float
    threshold: float

    @property
    def ratio(self) -> float:
        """The value in units of its threshold."""
        return self.value / self.threshold if math.isfinite(self.threshold) else 0.0


@dataclass(frozen=True)
class DimensionDrift:
    """One dimension, in all steps or in the first step of each episode.

    Attributes:
        dimension: The name of the dimension.
        steps: ALL_STEPS or FIRST_STEP.
        psi: The population stability index.
        distance: The Wasserstein distance in standard deviations of the reference in the same steps, or of categories
            the share of the values that differ.
        reference_mean, live_mean: Means of the values, or NaN for categories.
    """

    dimension: str
    steps: str
    psi: Statistic
    distance: Statistic
    reference_mean: float
    live_mean: float

    @property
    def ratio(self) -> float:
        """The larger statistic, in units of its threshold: more than 1 alarms."""
        return max(self.psi.ratio, self.distance.ratio)


@dataclass(frozen=True)
class Comparison:
    """The result for all dimensions, the largest drift first."""

    dimensions: tuple[DimensionDrift, ...]
    p_value: float
    """The share of the divisions whose largest statistic is at least that of the actual one."""
    alpha: float

    @property
    def ratio(self) -> float:
        """The largest statistic, in units of its threshold."""
        return self.dimensions[0].ratio

    @property
    def alarms(self) -> bool:
        """Whether the observations have drifted, at the level alpha."""
        return self.ratio > 1


def compare(
    reference: Reference,
    live: Sketches,
    alpha: float = 0.001,
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> Comparison:
    """Compare live episodes with a reference.

    Args:
        reference: The reference of the version that acted in the live episodes.
        live: Their sketches, with the same dimensions and as many quantiles.
        alpha: The probability of a false alarm.
        seed: Seed of the random divisions.
        advance: Called after each dimension.
    """
    first, count = len(reference.sketches), len(reference.sketches) + len(live)
    largest = max(count, _STATISTICS * len(reference.dimensions))
    divisions = _divisions(first, count, _how_many(largest, alpha), np.random.default_rng(seed))
    rows: list[tuple[str, str, tuple[float, float]]] = []
    statistics: list[NDArray[np.float64]] = []
    for name, steps, histogram, means in _histograms(reference, live):
        rows.append((name, steps, means))
        statistics += histogram.distances(divisions)
        if steps == FIRST_STEP:
            advance()
    values, thresholds, p_value = _judged(np.stack(statistics), alpha)
    pairs = [(Statistic(*psi), Statistic(*distance)) for psi, distance in _in_pairs(values, thresholds)]
    found = [DimensionDrift(name, steps, *pair, *means) for (name, steps, means), pair in zip(rows, pairs, strict=True)]
    return Comparison(tuple(sorted(found, key=lambda each: -each.ratio)), p_value, alpha)


def _how_many(largest: int, alpha: float) -> int:
    """Return how many divisions there are, if they are one side of matrices whose other side is `largest` at most."""
    wanted = max(_MIN_DIVISIONS, _DIVISIONS_PER_ALPHA / alpha)
    return math.ceil(max(min(wanted, _MAX_NUMBERS / largest), _MIN_DIVISIONS_PER_ALPHA / alpha))


def _divisions(first: int, count: int, rows: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return the actual division of the episodes into two groups, and then random ones, `[rows, episodes]`."""
    divisions = np.zeros((rows, count))
    divisions[0, :first] = 1
    for row in divisions[1:]:
        row[generator.permutation(count)[:first]] = 1
    return divisions


def _histograms(reference: Reference, live: Sketches) -> Iterator[tuple[str, str, Histogram, tuple[float, float]]]:
    """Yield each dimension in all steps and in the first step: name, steps, histogram, means of both groups."""
    ours = reference.sketches
    lengths = np.concatenate([ours.lengths, live.lengths])
    for index, dimension in enumerate(reference.dimensions):
        values = np.concatenate([ours.values[index], live.values[index]])
        first = np.concatenate([ours.first[:, index], live.first[:, index]])
        scale = first_scale = 1.0
        means = first_means = (math.nan, math.nan)
        if not dimension.categories:
            scale = _scale(ours.values[index], ours.lengths) or _scale(values, lengths) or 1.0
            own_first, live_first = (each.first[:, index].astype(np.float64) for each in (ours, live))
            first_scale = float(own_first.std()) or float(first.std(dtype=np.float64)) or 1.0
            means = _mean(ours.values[index], ours.lengths), _mean(live.values[index], live.lengths)
            first_means = float(own_first.mean()), float(live_first.mean())
        yield dimension.name, ALL_STEPS, Histogram.of_all_steps(values, lengths, dimension, scale), means
        yield dimension.name, FIRST_STEP, Histogram.of_first_steps(first, dimension, first_scale), first_means


def _mean(values: NDArray[np.float32], lengths: NDArray[np.int64]) -> float:
    return float(np.average(values.mean(axis=1, dtype=np.float64), weights=lengths))


def _scale(values: NDArray[np.float32], lengths: NDArray[np.int64]) -> float:
    """Return the standard deviation of the steps of all episodes."""
    center = _mean(values, lengths)
    squares = np.square(values.astype(np.float64) - center).mean(axis=1)
    return math.sqrt(float(np.average(squares, weights=lengths)))


def _judged(statistics: NDArray[np.float64], alpha: float) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the statistics of the actual division, their thresholds, and the p-value of the largest one.

    Args:
        statistics: `[statistics, divisions]`; the first division is the actual one.
        alpha: The probability of a false alarm.
    """
    mean, std = statistics.mean(axis=1), statistics.std(axis=1)
    thresholds = np.full(len(statistics), np.inf)
    varying = np.flatnonzero(std > _NOTHING)
    if not len(varying):
        return statistics[:, 0], thresholds, 1.0
    largest = np.full(statistics.shape[1], -np.inf)
    for index in varying:
        np.maximum(largest, (statistics[index] - mean[index]) / std[index], out=largest)
    critical = np.sort(largest)[::-1][int(alpha * len(largest))] + _TIED
    thresholds[varying] = mean[varying] + critical * std[varying]
    return statistics[:, 0], thresholds, float((largest > largest[0] - _TIED).mean())


def _in_pairs(
    values: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    both = list(zip(values.tolist(), thresholds.tolist(), strict=True))
    return zip(both[::2], both[1::2], strict=True)
