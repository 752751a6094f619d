"""Converts nested values of a space to arrays and back, leaf by leaf in the order of `serving.policy.spaces.leaves`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.policy.spaces import children, leaves

Batch = Mapping[str, NDArray[Any]]
"""The arrays of a batch of values, `[batch, *leaf.shape]` each, by the names of the graph's tensors."""


def flatten(space: Space[Any], value: Any) -> list[Any]:
    """Return the leaves of a value: arrays or tensors, with or without a batch dimension."""
    return list(_walk(space, value))


def _walk(space: Space[Any], value: Any) -> Iterator[Any]:
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        yield value
        return
    for name, child in children(space):
        yield from _walk(child, value[name if isinstance(space, spaces.Dict) else int(name)])


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
        values: At least one.
        root: `observations` or `action`, with which the names of the tensors begin.
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


def to_json(space: Space[Any], value: Any, digits: int | None = None) -> Any:
    """Return a value in JSON form: lists for arrays and tuples, objects for dicts, numbers for Discrete.

    Args:
        space: The space of the value.
        value: The value, as the environment returned it.
        digits: Digits after the decimal point that floats are rounded to; None does not round.
    """
    if isinstance(space, spaces.Dict):
        return {name: to_json(child, value[name], digits) for name, child in children(space)}
    if isinstance(space, spaces.Tuple):
        return [to_json(child, value[int(name)], digits) for name, child in children(space)]
    array = np.asarray(value, space.dtype)
    if digits is not None and array.dtype.kind == "f":
        array = array.astype(np.float64).round(digits)
    return array.tolist()
