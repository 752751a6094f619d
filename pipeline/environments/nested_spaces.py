"""Nested values of a space and the arrays that they consist of, in the order of `serving.policy.spaces.leaves`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.policy.spaces import children, leaves

Batch = Mapping[str, NDArray[Any]]
"""The arrays of a batch of values, `[batch, *leaf.shape]` each, by the name of their tensor in the graph."""


def flatten(space: Space[Any], value: Any) -> list[Any]:
    """The leaves of a value, be they arrays or tensors, batched or not."""
    return list(_walk(space, value))


def _walk(space: Space[Any], value: Any) -> Iterator[Any]:
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        yield value
        return
    for name, child in children(space):
        yield from _walk(child, value[name if isinstance(space, spaces.Dict) else int(name)])


def nest(space: Space[Any], flat: Sequence[Any]) -> Any:
    """The value that consists of these leaves: a dict for Dict, a tuple for Tuple."""
    remaining = iter(flat)

    def build(part: Space[Any]) -> Any:
        if isinstance(part, spaces.Dict):
            return {name: build(child) for name, child in children(part)}
        if isinstance(part, spaces.Tuple):
            return tuple(build(child) for _, child in children(part))
        return next(remaining)

    return build(space)


def stack(space: Space[Any], values: Sequence[Any], root: str) -> dict[str, NDArray[Any]]:
    """A batch of values, leaf by leaf, in the leaves' own dtypes."""
    is_nested = isinstance(space, spaces.Dict | spaces.Tuple)
    columns = zip(*(flatten(space, value) for value in values), strict=True) if is_nested else [values]
    return {
        leaf.tensor(root): np.array(column, leaf.space.dtype)
        for leaf, column in zip(leaves(space), columns, strict=True)
    }


def unstack(space: Space[Any], batch: Batch, root: str) -> list[Any]:
    """The values of a batch, as the space has them: `stack` undone."""
    return nest_batch(space, [batch[leaf.tensor(root)] for leaf in leaves(space)])


def nest_batch(space: Space[Any], flat: Sequence[NDArray[Any]]) -> list[Any]:
    """The values of a batch given by its leaves' arrays."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return list(flat[0])
    return [nest(space, rows) for rows in zip(*flat, strict=True)]


def to_json(space: Space[Any], value: Any, digits: int | None = None) -> Any:
    """A value as JSON has it: lists for arrays and tuples, objects for dicts, numbers for Discrete.

    Args:
        space: What the value is an element of.
        value: As the environment has it.
        digits: How many to leave after the point; all by default.
    """
    if isinstance(space, spaces.Dict):
        return {name: to_json(child, value[name], digits) for name, child in children(space)}
    if isinstance(space, spaces.Tuple):
        return [to_json(child, value[int(name)], digits) for name, child in children(space)]
    array = np.asarray(value, space.dtype)
    return (
        array.astype(np.float64).round(digits) if digits is not None and array.dtype.kind == "f" else array
    ).tolist()
