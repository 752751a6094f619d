"""Converts actions from JSON to elements of their space, in the types that `env.step` takes. It needs numpy."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Json = Any


def element(space: Mapping[str, Json], action: Json) -> Any:
    """Return the element of a space that a JSON value stands for.

    Args:
        space: the space in the JSON form of `/model`.
        action: an action of an answer.

    Returns:
        An array in the space's dtype, a NumPy integer for Discrete, a dict for Dict, a tuple for Tuple. A value that
        does not fit the space is returned as it is, because the environment says best what it expects.
    """
    try:
        return _element(space, action)
    except (KeyError, OverflowError, TypeError, ValueError):
        return action


def _element(space: Mapping[str, Json], action: Json) -> Any:
    match space["type"]:
        case "Dict":
            return {key: _element(child, action[key]) for key, child in space["spaces"].items()}
        case "Tuple":
            return tuple(_element(child, part) for child, part in zip(space["spaces"], action, strict=True))
        case "Discrete":
            return np.asarray(action, space.get("dtype", "int64"))[()]
        case "MultiBinary":
            return np.asarray(action, np.int8)
        case _:
            return np.asarray(action, space["dtype"])
