"""The JSON form of actions: what `env.step` takes, numbers for Discrete and lists for arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.errors import PolicyFailed, SpaceUnsupported
from serving.spaces import Json

ActionWriter = Callable[[NDArray[Any]], Sequence[Json]]
"""Actions `[batch, ...]` of one space -> their JSON forms, one each."""


def action_writer(space: Space[Any]) -> ActionWriter:
    """Return the function that writes a space's actions.

    Raises:
        SpaceUnsupported: neither Box nor Discrete.
    """
    if isinstance(space, spaces.Discrete):
        return _write_integers
    if isinstance(space, spaces.Box):
        return _write_arrays
    raise SpaceUnsupported(f"{space} as actions")


def _write_integers(actions: NDArray[Any]) -> Sequence[Json]:
    return actions.tolist()  # type: ignore[no-any-return]


def _write_arrays(actions: NDArray[Any]) -> Sequence[Json]:
    # JSON has no NaN: a policy that diverged must not answer null.
    if not np.isfinite(actions).all():
        raise PolicyFailed("the action is not finite")
    return actions.tolist()  # type: ignore[no-any-return]
