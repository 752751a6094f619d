"""Converts nested values of a space to arrays and back, leaf by leaf in the order of `serving.policy.spaces.leaves`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.policy.spaces import children, leaves

Batch = Mapping[str, NDArray[Any]]
"""The arrays of a batch of values, `[batch, *leaf.shape]` each, by the names of the graph's tensors."""


def flatten(space: Space[Any], value: Any) -> list[Any]:
    """Return the leaves of a value: arrays or tensors, with or without a batch dimension."""
    if isinstance(space, spaces.Dict):
        return [leaf for name, child in children(space) for leaf in flatten(child, value[name])]
    if isinstance(space, spaces.Tuple):
        return [leaf for index, child in children(space) for leaf in flatten(child, value[int(index)])]
    return [value]


def nest(space: Space[Any], flat: Sequence[Any]) -> Any:
    """Return the value that consists of these leaves: a dict for a Dict, a tuple for a Tuple. Undoes `flatten`."""
    remaining = iter(flat)

    def build(part: Space[Any]) -> Any:
        if isinstance(part, spaces.Dict):
            return {name: build(child) for name, child in children(part)}
        if isinstance(part, spaces.Tuple):
            return tuple(build(child) for _, child in children(part))
        return next(remaining)

    return build(space)


def stack(space: Space[Any], values: Sequence[Any], root: str) -> dict[str, NDArray[Any]]:
    """Return a batch of values in the dtypes of the leaves.

    Args:
        space: The space of each value.
        values: One or more values.
        root: The first part of the names of the tensors: `observations` or `action`.
    """
    is_nested = isinstance(space, spaces.Dict | spaces.Tuple)
    columns = zip(*(flatten(space, value) for value in values), strict=True) if is_nested else [values]
    return {
        leaf.tensor(root): np.array(column, leaf.space.dtype)
        for leaf, column in zip(leaves(space), columns, strict=True)
    }


def unstack(space: Space[Any], batch: Batch, root: str) -> list[Any]:
    """Return the values of a batch, each an element of the space. Undoes `stack`."""
    flat = [batch[leaf.tensor(root)] for leaf in leaves(space)]
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return list(flat[0])
    return [nest(space, rows) for rows in zip(*flat, strict=True)]
