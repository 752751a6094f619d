"""Converts a policy's distribution inputs to probabilities, means and standard deviations for the page."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.policy.spaces import Json, Leaf, LeafSpace, leaves

MAX_SHOWN = 32
"""The most probabilities, and the most parts of an action, that the page shows."""


class Categorical(NamedTuple):
    """One number of an action, which is one of `size` successive integers from `start`."""

    name: str
    start: int
    size: int

    def describe(self, logits: NDArray[Any]) -> dict[str, Json]:
        """Return the first MAX_SHOWN probabilities for logits `[size]`."""
        weights = np.exp(logits - logits.max())
        shown = (weights / weights.sum())[:MAX_SHOWN]
        return {"name": self.name, "start": self.start, "probabilities": shown.round(4).tolist()}


class Gaussian(NamedTuple):
    """The numbers of one leaf that have normal distributions, before the graph scales them to the action space."""

    name: str
    numbers: int

    @property
    def size(self) -> int:
        """The number of inputs: the means, then the logarithms of the standard deviations."""
        return 2 * self.numbers

    def describe(self, inputs: NDArray[Any]) -> dict[str, Json]:
        """Return the first MAX_SHOWN means and standard deviations for inputs `[size]`."""
        mean, log_std = inputs.reshape(2, -1)[:, :MAX_SHOWN]
        return {"name": self.name, "mean": mean.round(4).tolist(), "std": np.exp(log_std).round(4).tolist()}


class Distribution:
    """The distribution of the actions of one space."""

    def __init__(self, action_space: Space[Any]) -> None:
        self._parts = [part for leaf in leaves(action_space) for part in _parts(leaf)]

    def describe(self, inputs: Json) -> list[Json]:
        """Return the distribution of each part of the action, or an empty list if the inputs have another form.

        Args:
            inputs: `action_dist_inputs` of an answer, where null stands for an infinite number.
        """
        numbers = np.array(inputs, np.float64)  # null becomes NaN
        sizes = [part.size for part in self._parts]
        if numbers.shape != (sum(sizes),) or not np.isfinite(numbers).all():
            return []
        columns = np.split(numbers, np.cumsum(sizes)[:-1])
        return [part.describe(column) for part, column in zip(self._parts, columns, strict=True)][:MAX_SHOWN]


def _parts(leaf: Leaf) -> Iterator[Categorical | Gaussian]:
    space = leaf.space
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind == "f":
        yield Gaussian(leaf.path, math.prod(space.shape))
        return
    starts, sizes = _ranges(space)
    for index, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        name = f"{leaf.path}[{index}]" if len(sizes) > 1 else leaf.path
        yield Categorical(name, int(start), int(size))


def _ranges(space: LeafSpace) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest value of each number of the space, and the number of its values."""
    if isinstance(space, spaces.Discrete):
        return np.array([space.start]), np.array([space.n])
    if isinstance(space, spaces.MultiDiscrete):
        return space.start.ravel(), space.nvec.ravel()
    if isinstance(space, spaces.MultiBinary):
        return np.zeros(space.shape).ravel(), np.full(space.shape, 2).ravel()
    return space.low.ravel(), space.high.ravel().astype(np.int64) - space.low.ravel() + 1
