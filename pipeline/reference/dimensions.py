"""The dimensions of an observation space: the numbers of an observation that are compared, one by one.

| array | its dimensions |
| --- | --- |
| Discrete, MultiDiscrete, MultiBinary, small ranges of integers | each element, as a category |
| other numbers | each element |
| an image | mean and standard deviation of each channel |
| another array of more than MAX_ELEMENTS elements | mean and standard deviation of all elements |
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from pipeline.environments.images import has_channels_first, is_image
from serving.policy.spaces import Leaf, LeafSpace, integer_range, leaves
from serving.policy.tensors import OBSERVATIONS, Tensors

MAX_ELEMENTS = 512
"""The elements up to which each one of an array is a dimension."""
MAX_CATEGORIES = 512
"""The values up to which the integers of Discrete and MultiDiscrete are categories; above, they are numbers."""
MAX_BOX_CATEGORIES = 16
"""The same for a Box of integers, which are measured more often than they are chosen."""

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Dimension:
    """One number of an observation.

    Attributes:
        name: The path of its array in a nested space, and its index: `2`, `arm.position[0]`, `channel 1 mean`.
        categories: The number of its values if these are categories, else 0.
        start: The first of these values.
    """

    name: str
    categories: int = 0
    start: int = 0


@dataclass(frozen=True)
class _Array:
    """One array of the observations, and how it is reduced to its dimensions."""

    leaf: Leaf
    dimensions: tuple[Dimension, ...]
    is_reduced: bool

    def numbers(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the dimensions of a batch `[rows, *shape]`, `[rows, dimensions]`. They are finite."""
        values = self._channels(batch) if self.is_reduced else batch.reshape(len(batch), -1)
        return np.nan_to_num(values.astype(np.float32), posinf=_LARGEST, neginf=-_LARGEST)

    def _channels(self, batch: NDArray[Any]) -> NDArray[np.float64]:
        space = self.leaf.space
        rows = batch.reshape(len(batch), -1, 1)
        if is_image(space):
            last = np.moveaxis(batch, 1, -1) if has_channels_first(space) else batch
            rows = last.reshape(len(batch), -1, last.shape[-1])
        with np.errstate(all="ignore"):  # of numbers that are not finite
            mean, std = (getattr(rows, name)(axis=1, dtype=np.float64) for name in ("mean", "std"))
        return np.stack([mean, std], axis=2).reshape(len(batch), -1)


class Dimensions:
    """The dimensions of the observations of a space, those of its arrays one after the other."""

    def __init__(self, space: Space[Any]) -> None:
        self._arrays = [_array_of(leaf) for leaf in leaves(space)]
        self.all = tuple(each for array in self._arrays for each in array.dimensions)

    def __len__(self) -> int:
        return len(self.all)

    def numbers(self, observations: Tensors) -> NDArray[np.float32]:
        """Return the dimensions of observations, `[rows, dimensions]`, from arrays by the names of the graph's inputs.

        Infinities become the largest float32, NaN becomes 0.
        """
        return np.concatenate(
            [array.numbers(observations[array.leaf.tensor(OBSERVATIONS)]) for array in self._arrays], axis=1
        )


def _array_of(leaf: Leaf) -> _Array:
    prefix, space = leaf.path, leaf.space
    if is_image(space):
        channels = space.shape[0] if has_channels_first(space) else space.shape[-1]
        return _Array(
            leaf, tuple(_statistics(prefix, [f"channel {index} " for index in range(channels)])), is_reduced=True
        )
    if math.prod(space.shape or ()) > MAX_ELEMENTS:
        return _Array(leaf, tuple(_statistics(prefix, [""])), is_reduced=True)
    return _Array(leaf, tuple(_elements(prefix, space)), is_reduced=False)


def _statistics(prefix: str, channels: list[str]) -> Iterator[Dimension]:
    for channel in channels:
        yield Dimension(f"{prefix} {channel}mean".strip())
        yield Dimension(f"{prefix} {channel}std".strip())


def _elements(prefix: str, space: LeafSpace) -> Iterator[Dimension]:
    shape = space.shape or ()
    low, categories = _categories(space)
    for place, index in enumerate(np.ndindex(*shape)):
        written = ", ".join(map(str, index))
        name = f"{prefix}[{written}]" if prefix and shape else prefix or written or "observation"
        yield Dimension(name, int(categories[place]), int(low[place]))


def _categories(space: LeafSpace) -> tuple[list[int], list[int]]:
    """Return the lowest value and the number of categories of each element, 0 and 0 if it is a number."""
    size = math.prod(space.shape or ())
    bounds = integer_range(space)
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind in "iu" and space.is_bounded():
        bounds = space.low, space.high
    if bounds is None:
        return [0] * size, [0] * size
    low, high = (np.asarray(bound).astype(object).reshape(-1).tolist() for bound in bounds)
    most = MAX_BOX_CATEGORIES if isinstance(space, spaces.Box) else MAX_CATEGORIES
    counts = [int(last) - int(first) + 1 for first, last in zip(low, high, strict=True)]
    return (
        [int(first) if count <= most else 0 for first, count in zip(low, counts, strict=True)],
        [count if count <= most else 0 for count in counts],
    )
