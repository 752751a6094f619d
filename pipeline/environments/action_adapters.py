"""Converts between the actions that RLlib's PPO can train on and those that an environment takes.

PPO trains on Discrete from 0, one-dimensional MultiDiscrete from 0, and one-dimensional float32 Boxes that are bounded
on both sides or on neither. Those spaces stay as they are. Every other leaf is adapted:

- Discrete and MultiDiscrete are counted from 0, and MultiDiscrete of more dimensions is flattened;
- MultiBinary becomes a choice between 0 and 1 for each bit;
- a Box of integers becomes a choice between the integers of each element;
- any other Box becomes a flat, unbounded one. Where the environment's Box is bounded on both sides, [-1, 1] is scaled
  to its range; values beyond a bound are clipped.

A Dict or Tuple becomes the Tuple of its adapted leaves, in the order of `serving.policy.spaces.leaves`.
"""

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from pipeline.environments.nested_spaces import flatten, nest
from serving.policy.spaces import LeafSpace, leaves


def adapted(space: Space[Any]) -> Space[Any]:
    """Return the space of the policy's own actions, which is `space` itself if PPO supports it."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return spaces.Tuple([adapted_leaf(leaf.space) for leaf in leaves(space)])
    return adapted_leaf(space)


def adapted_leaf(space: Any) -> LeafSpace:
    """Return the space that PPO trains on instead of a leaf; the leaf itself if PPO supports it."""
    if is_native(space):
        return space  # type: ignore[no-any-return]
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec.ravel())
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiDiscrete(np.full(math.prod(space.shape), 2))
    if is_integer(space):
        return spaces.MultiDiscrete(choices(space).ravel())
    return spaces.Box(-np.inf, np.inf, (math.prod(space.shape),), np.float32)


def is_native(space: LeafSpace) -> bool:
    """Return whether RLlib's PPO and its connectors support a leaf as it is."""
    if isinstance(space, spaces.Discrete):
        return space.start == 0 and space.dtype == np.int64
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.ndim == 1 and not space.start.any() and space.dtype == np.int64
    if isinstance(space, spaces.Box):
        bounded = space.bounded_below.all() and space.bounded_above.all()
        unbounded = not (space.bounded_below.any() or space.bounded_above.any())
        return len(space.shape) == 1 and space.dtype == np.float32 and bool(bounded or unbounded)
    return False


def is_integer(space: Any) -> bool:
    """Return whether a space is a Box of integers."""
    return isinstance(space, spaces.Box) and bool(np.issubdtype(space.dtype, np.integer))


def choices(space: spaces.Box) -> NDArray[Any]:
    """Return the number of integers of each element of a Box of integers, as Python integers, which cannot overflow."""
    counts = space.high.astype(object) - space.low.astype(object) + 1
    return np.asarray(counts, dtype=object)  # without dimensions, the difference is a number


def from_policy(space: Space[Any], action: Any) -> Any:
    """Convert an element of `adapted(space)`, the policy's action, to an element of `space`, the environment's."""
    parts = flatten(adapted(space), action)
    return nest(space, [_leaf_from_policy(leaf.space, part) for leaf, part in zip(leaves(space), parts, strict=True)])


def _leaf_from_policy(space: LeafSpace, action: Any) -> Any:
    if is_native(space):
        return action
    if isinstance(space, spaces.Discrete):
        return np.asarray(action, space.dtype)[()] + space.start
    flat = np.asarray(action).reshape(space.shape)
    if isinstance(space, spaces.MultiDiscrete):
        return flat.astype(space.dtype) + space.start
    if isinstance(space, spaces.MultiBinary):
        return flat.astype(space.dtype)
    if is_integer(space):
        return np.asarray(flat.astype(space.dtype) + space.low)
    return _scaled(space, flat.astype(np.float64))


def _scaled(space: spaces.Box, action: NDArray[np.float64]) -> NDArray[Any]:
    bounded = space.bounded_below & space.bounded_above
    low, high = (np.where(bounded, bound.astype(np.float64), 0.0) for bound in (space.low, space.high))
    scaled = np.where(bounded, low + (action + 1.0) * (high - low) / 2.0, action)
    return np.clip(scaled, space.low, space.high).astype(space.dtype)


def to_policy(space: Space[Any], actions: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Convert recorded actions of an environment to those that a policy learns. Undoes `from_policy`.

    RLlib itself scales [-1, 1] to a bounded Box for which `is_native` holds; that is undone, too. An action that was
    clipped becomes one at the bound: what the policy had drawn beyond it is not recorded.

    Args:
        space: The environment's action space.
        actions: One array per leaf, `[steps, *leaf.shape]`.

    Returns:
        One array per leaf of `adapted(space)`, `[steps, *shape]`.
    """
    return [_leaf_to_policy(leaf.space, array) for leaf, array in zip(leaves(space), actions, strict=True)]


def _leaf_to_policy(space: LeafSpace, actions: NDArray[Any]) -> NDArray[Any]:
    if isinstance(space, spaces.Box) and not is_integer(space):
        return _unscaled(space, actions)
    if is_native(space):
        return actions
    adapted_space = adapted_leaf(space)
    start = getattr(space, "low", getattr(space, "start", 0))  # MultiBinary has neither
    counted = actions.astype(np.int64) - np.asarray(start).astype(np.int64)
    return counted.reshape(len(actions), *(adapted_space.shape or ()))


def _unscaled(space: spaces.Box, actions: NDArray[Any]) -> NDArray[Any]:
    """Undo `_scaled` and RLlib's `unsquash_action`, which is the same for Boxes that are bounded on both sides."""
    bounded = space.bounded_below & space.bounded_above
    low, high = (np.where(bounded, bound.astype(np.float64), 0.0) for bound in (space.low, space.high))
    width = np.where(high > low, high - low, 1.0)
    unscaled = np.where(bounded, 2.0 * (actions - low) / width - 1.0, actions)
    return unscaled.reshape(len(actions), -1).astype(np.float32)


class AdaptedActions(gymnasium.ActionWrapper[Any, Any, Any]):
    """Wraps an environment so that it takes the policy's own actions."""

    def __init__(self, environment: gymnasium.Env[Any, Any]) -> None:
        super().__init__(environment)
        self.action_space = adapted(environment.action_space)

    def action(self, action: Any) -> Any:
        """Convert the policy's action to the environment's."""
        return from_policy(self.env.action_space, action)
