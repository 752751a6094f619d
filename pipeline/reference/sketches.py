"""Sketches of episodes: what is kept of the observations of each whole episode, so that episodes can be compared.

A sketch has the length of the episode and, per dimension, its first value and the quantiles of all its values, or how
often each category occurred. The steps of an episode depend on each other, so an episode is the unit that is drawn
again when the error of a statistic is estimated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.reference.dimensions import Dimension

MAX_QUANTILES, MIN_QUANTILES = 16, 4
"""The quantiles of each dimension in an episode: fewer where many dimensions would make the file large."""
_NUMBERS = 2**18
"""The quantiles of all episodes and dimensions together, above which there are fewer of each."""

_MAX_STEPS, _MIN_STEPS = 512, 32
_KEPT_NUMBERS = 2**17


@dataclass(frozen=True)
class Sketches:
    """The sketches of some episodes.

    Attributes:
        lengths: The number of steps, `[episodes]`.
        first: The first value of each dimension, `[episodes, dimensions]`.
        values: Per dimension `[episodes, quantiles]`, each of which stands for the same share of the steps; of
            categories the share of each, `[episodes, categories]`.
    """

    lengths: NDArray[np.int64]
    first: NDArray[np.float32]
    values: tuple[NDArray[np.float32], ...]

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def of(cls, episodes: Sequence["Steps"], dimensions: Sequence[Dimension], quantiles: int) -> "Sketches":
        """Return the sketches of one or more episodes."""
        levels = (np.arange(quantiles) + 0.5) / quantiles
        sketched = [_sketch(episode.numbers, dimensions, levels) for episode in episodes]
        return cls(
            np.array([episode.length for episode in episodes], np.int64),
            np.stack([episode.numbers[0] for episode in episodes]),
            tuple(np.stack(column) for column in zip(*sketched, strict=True)),
        )


@dataclass(frozen=True)
class Steps:
    """The steps of one episode, or every second, fourth, eighth ... of them if it is long.

    Attributes:
        length: How many steps it had.
        numbers: The dimensions of the steps that are kept, `[steps, dimensions]`; the first step is one of them.
    """

    length: int
    numbers: NDArray[np.float32]


def quantiles_for(episodes: int, dimensions: int) -> int:
    """Return how many quantiles the sketch of an episode has per dimension."""
    return int(np.clip(_NUMBERS // max(1, episodes * dimensions), MIN_QUANTILES, MAX_QUANTILES))


def max_steps(dimensions: int) -> int:
    """Return how many steps of an episode are kept at most."""
    return int(np.clip(_KEPT_NUMBERS // max(1, dimensions), _MIN_STEPS, _MAX_STEPS))


def stride(length: int, most: int) -> int:
    """Return the smallest power of two for which every stride-th step of an episode is at most `most` steps."""
    found = 1
    while -(-length // found) > most:
        found *= 2
    return found


class StepRecorder:
    """Keeps the steps of episodes that are played in parallel, within a bound of memory.

    Args:
        dimensions: The number of dimensions.
    """

    def __init__(self, dimensions: int) -> None:
        self._most = max_steps(dimensions)
        self._kept: dict[int, list[NDArray[np.float32]]] = {}
        self._lengths: dict[int, int] = {}

    def add(self, episodes: Sequence[int], numbers: NDArray[np.float32]) -> None:
        """Add the next step of each of some episodes: numbers `[episodes, dimensions]`."""
        for episode, row in zip(episodes, numbers, strict=True):
            length = self._lengths.get(episode, 0)
            kept = self._kept.setdefault(episode, [])
            self._lengths[episode] = length + 1
            if length % stride(length, self._most):
                continue
            kept.append(row)
            if len(kept) > self._most:
                del kept[1::2]

    def episodes(self) -> list[Steps]:
        """Return the episodes in the order of their numbers."""
        return [Steps(self._lengths[index], np.stack(self._kept[index])) for index in sorted(self._kept)]


def _sketch(
    numbers: NDArray[np.float32], dimensions: Sequence[Dimension], levels: NDArray[np.float64]
) -> list[NDArray[np.float32]]:
    ordered = np.sort(numbers, axis=0)
    places = np.minimum((levels * len(ordered)).astype(np.int64), len(ordered) - 1)
    return [
        _shares(ordered[:, index], dimension) if dimension.categories else ordered[places, index]
        for index, dimension in enumerate(dimensions)
    ]


def _shares(values: NDArray[np.float32], dimension: Dimension) -> NDArray[np.float32]:
    """Return how often each category occurs. Values that are none, which no server accepts, count as the nearest."""
    index = np.clip(values.astype(np.int64) - dimension.start, 0, dimension.categories - 1)
    counts = np.bincount(index, minlength=dimension.categories)
    return (counts / len(values)).astype(np.float32)
