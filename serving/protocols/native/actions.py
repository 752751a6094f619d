"""The JSON form of actions, as `env.step` takes them.

Discrete actions are numbers, arrays and Tuples are lists, Dicts are objects.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.policy.errors import PolicyFailed
from serving.policy.spaces import Json, Leaf, children, leaves
from serving.policy.tensors import ACTION, Tensors

LeafWriter = Callable[[NDArray[Any]], Sequence[Json]]
"""Actions `[batch, *shape]` of one leaf -> the JSON form of each."""

ActionWriter = Callable[[Tensors], Sequence[Json]]
"""Actions `[batch, *shape]` by the names of the graph's outputs -> the JSON form of each."""


def action_writer(space: Space[Any]) -> ActionWriter:
    """Return the function that writes a space's actions. Raises SpaceUnsupported."""
    writers = [(leaf.tensor(ACTION), leaf_writer(leaf)) for leaf in leaves(space)]

    def write(tensors: Tensors) -> list[Json]:
        columns = [write_leaf(tensors[name]) for name, write_leaf in writers]
        return [_nest(space, iter(row)) for row in zip(*columns, strict=True)]

    return write


def leaf_writer(leaf: Leaf) -> LeafWriter:
    """Return the function that writes one leaf's actions."""
    return _write_finite if np.dtype(leaf.space.dtype).kind == "f" else lambda actions: actions.tolist()


def _write_finite(actions: NDArray[Any]) -> Sequence[Json]:
    # JSON has no NaN, and the actions of a diverged policy must not become null.
    if not np.isfinite(actions).all():
        raise PolicyFailed("the action is not finite")
    return actions.tolist()  # type: ignore[no-any-return]


def _nest(space: Space[Any], values: Iterator[Json]) -> Json:
    """Arrange values, given in the order of `leaves`, in the structure of the space."""
    if isinstance(space, spaces.Dict):
        return {name: _nest(child, values) for name, child in children(space)}
    if isinstance(space, spaces.Tuple):
        return [_nest(child, values) for _, child in children(space)]
    return next(values)
