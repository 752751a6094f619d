"""The JSON form of actions, as `env.step` takes them.

Discrete actions are numbers, arrays and Tuples are lists, Dicts are objects.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gymnasium import Space, spaces

from serving.policy.spaces import Json, children, leaves
from serving.policy.tensors import ACTION, Tensors

ActionWriter = Callable[[Tensors], Sequence[Json]]
"""Actions `[batch, *shape]` by the names of the graph's outputs -> the JSON form of each."""


def action_writer(space: Space[Any]) -> ActionWriter:
    """Return the function that writes a space's actions. Raises SpaceUnsupported."""
    names = [leaf.tensor(ACTION) for leaf in leaves(space)]

    def write(tensors: Tensors) -> list[Json]:
        columns = [tensors[name].tolist() for name in names]
        return [_nest(space, iter(row)) for row in zip(*columns, strict=True)]

    return write


def _nest(space: Space[Any], values: Iterator[Json]) -> Json:
    """Arrange values, given in the order of `leaves`, in the structure of the space."""
    if isinstance(space, spaces.Dict):
        return {name: _nest(child, values) for name, child in children(space)}
    if isinstance(space, spaces.Tuple):
        return [_nest(child, values) for _, child in children(space)]
    return next(values)
