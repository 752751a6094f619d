"""Histograms of one dimension in whole episodes, and how far two groups of episodes are apart in it."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.reference.dimensions import Dimension

BINS = 60
"""The bins of numbers, each with about the same share of all steps. The distance is computed on them."""
GROUPS = 10
"""The groups of consecutive bins, of which the population stability index is computed."""
FLOOR = 1e-3
"""Added to each share in the population stability index, which would be infinite if one group has no value in a bin."""


@dataclass(frozen=True)
class Histogram:
    """How often the values of each episode lie in each bin.

    Attributes:
        counts: `[episodes, bins]`.
        gaps: The distance between the centers of consecutive bins, `[bins - 1]`; None for categories, all of which are
            equally far from each other.
        groups: The group of each bin, `[bins]`.
    """

    counts: NDArray[np.float64]
    gaps: NDArray[np.float64] | None
    groups: NDArray[np.int64]

    @classmethod
    def of_all_steps(
        cls, values: NDArray[np.float32], lengths: NDArray[np.int64], dimension: Dimension, scale: float
    ) -> Self:
        """Return the histogram of all steps, from the values of `Sketches`. The unit of the distance is `scale`."""
        if dimension.categories:
            return cls(lengths[:, None].astype(np.float64) * values, None, np.arange(dimension.categories))
        return cls._of_numbers(values.astype(np.float64), lengths / values.shape[1], scale)

    @classmethod
    def of_first_steps(cls, first: NDArray[np.float32], dimension: Dimension, scale: float) -> Self:
        """Return the histogram of the first step of each episode."""
        if not dimension.categories:
            return cls._of_numbers(first[:, None].astype(np.float64), np.ones(len(first)), scale)
        index = np.clip(first.astype(np.int64) - dimension.start, 0, dimension.categories - 1)
        return cls(np.eye(dimension.categories)[index], None, np.arange(dimension.categories))

    @classmethod
    def _of_numbers(cls, values: NDArray[np.float64], weights: NDArray[np.float64], scale: float) -> Self:
        """Return the histogram of values `[episodes, values]`, each of which counts as its episode's weight.

        The bins follow from the values of both groups together: which episode belongs to which group does not matter.
        """
        flat, weight = values.reshape(-1), np.repeat(weights, values.shape[1])
        order = np.argsort(flat, kind="stable")
        passed = np.cumsum(weight[order])
        starts = np.searchsorted(passed, np.arange(1, BINS) / BINS * passed[-1], side="right")
        edges = np.unique(flat[order][np.minimum(starts, len(flat) - 1)])
        bins = np.searchsorted(edges, flat, side="right")
        mass = np.bincount(bins, weight, len(edges) + 1)
        used = np.flatnonzero(mass)
        center = np.bincount(bins, weight * flat, len(edges) + 1)[used] / mass[used]
        counts = np.zeros((len(values), len(edges) + 1))
        np.add.at(counts, (np.repeat(np.arange(len(values)), values.shape[1]), bins), weight)
        before = np.cumsum(mass[used]) - mass[used] / 2
        groups = np.minimum((before / passed[-1] * GROUPS).astype(np.int64), GROUPS - 1)
        return cls(counts[:, used], np.diff(center) / scale, groups)

    def distances(self, is_first: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return how far two groups of episodes are apart, for several divisions into groups.

        Args:
            is_first: 1 for the episodes of the first group, 0 for those of the second, `[divisions, episodes]`.

        Returns:
            The population stability index and the Wasserstein distance, `[divisions]` each. The latter is the mean
            distance by which values have to be moved, in units of the scale. For categories it is the share of values
            that have to change, which is the total variation.
        """
        total = self.counts.sum(axis=0)
        one = is_first @ self.counts
        other = np.maximum(total - one, 0)
        one, other = (each / each.sum(axis=1, keepdims=True) for each in (one, other))
        if self.gaps is None:
            distance = np.abs(one - other).sum(axis=1) / 2
        else:
            distance = np.abs(np.cumsum(one - other, axis=1)[:, :-1]) @ self.gaps
        return _stability_index(*(self._grouped(each) for each in (one, other))), distance

    def _grouped(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        starts = np.flatnonzero(np.diff(self.groups, prepend=-1))
        return np.add.reduceat(shares, starts, axis=1)


def _stability_index(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the population stability index, the sum of the Kullback-Leibler divergences in both directions."""
    return ((one - other) * np.log((one + FLOOR) / (other + FLOOR))).sum(axis=1)  # type: ignore[no-any-return]
