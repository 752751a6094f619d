"""What a policy's distribution inputs say: the probability of each choice, the mean and deviation of each number."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.policy.spaces import Json, Leaf, LeafSpace, leaves

MAX_SHOWN = 32
"""Choices, and parts of an action, that a page can show."""


class Choices(NamedTuple):
    """One number of an action that is chosen among `size` successive ones."""

    name: str
    start: int
    size: int

    def read(self, logits: NDArray[Any]) -> dict[str, Json]:
        """Return the probabilities of those that fit on a page."""
        weights = np.exp(logits - logits.max())
        shown = (weights / weights.sum())[:MAX_SHOWN]
        return {"name": self.name, "start": self.start, "probabilities": shown.round(4).tolist()}


class Gaussians(NamedTuple):
    """The numbers of one leaf that are drawn from a normal distribution, in the policy's own scale."""

    name: str
    numbers: int

    @property
    def size(self) -> int:
        """How many inputs they take: means, then logarithms of standard deviations."""
        return 2 * self.numbers

    def read(self, inputs: NDArray[Any]) -> dict[str, Json]:
        """Return the means and standard deviations of those that fit on a page."""
        mean, log_std = inputs.reshape(2, -1)[:, :MAX_SHOWN]
        return {"name": self.name, "mean": mean.round(4).tolist(), "std": np.exp(log_std).round(4).tolist()}


class Distribution:
    """Reads the distribution inputs of one action space."""

    def __init__(self, action_space: Space[Any]) -> None:
        self._parts = [part for leaf in leaves(action_space) for part in _parts(leaf)]

    def read(self, inputs: Json) -> list[Json]:
        """Return what each part of the action is drawn from; nothing where the graph says it in another form.

        Args:
            inputs: `action_dist_inputs` of an answer, null where a number is infinite.
        """
        numbers = np.array(inputs, np.float64)  # null becomes NaN
        if numbers.shape != (sum(part.size for part in self._parts),) or not np.isfinite(numbers).all():
            return []
        ends = np.cumsum([part.size for part in self._parts])
        columns = np.split(numbers, ends[:-1])
        return [part.read(column) for part, column in zip(self._parts, columns, strict=True)][:MAX_SHOWN]


def _parts(leaf: Leaf) -> Iterator[Choices | Gaussians]:
    space = leaf.space
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind == "f":
        yield Gaussians(leaf.path, math.prod(space.shape))
        return
    starts, sizes = _choices(space)
    for index, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        name = f"{leaf.path}[{index}]" if len(sizes) > 1 else leaf.path
        yield Choices(name, int(start), int(size))


def _choices(space: LeafSpace) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the first of each number's choices, and how many there are."""
    if isinstance(space, spaces.Discrete):
        return np.array([space.start]), np.array([space.n])
    if isinstance(space, spaces.MultiDiscrete):
        return space.start.ravel(), space.nvec.ravel()
    if isinstance(space, spaces.MultiBinary):
        count = math.prod(space.shape)
        return np.zeros(count), np.full(count, 2)
    return space.low.ravel(), space.high.ravel().astype(np.int64) - space.low.ravel() + 1
