"""The JSON form of spaces, as `policy.json` and `/model` hold it."""

import math
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.errors import SpaceUnsupported

Json = Any
"""A value that `json.loads` may return."""


def space_to_json(space: Space[Any]) -> dict[str, Json]:
    """Describe a Box or Discrete space in valid JSON: infinities are the strings "inf" and "-inf".

    Raises:
        SpaceUnsupported: the space is of another type.
    """
    if isinstance(space, spaces.Box):
        bounds = {"low": _bound_to_json(space.low), "high": _bound_to_json(space.high)}
        return {"type": "Box", "shape": list(space.shape), "dtype": np.dtype(space.dtype).name, **bounds}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    raise SpaceUnsupported(str(space))


def space_from_json(description: Json) -> Space[Any]:
    """Build the space that `space_to_json` described.

    Raises:
        SpaceUnsupported: the description is not of that form.
    """
    try:
        if description["type"] == "Box":
            return _box_from_json(description)
        if description["type"] == "Discrete":
            return spaces.Discrete(n=int(description["n"]), start=int(description.get("start", 0)))
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise SpaceUnsupported(f"{str(description)[:200]} ({error!r})") from error
    raise SpaceUnsupported(str(description)[:200])


def _box_from_json(description: dict[str, Json]) -> spaces.Box:
    shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
    low, high = (
        np.broadcast_to(np.array(_numbers(description[bound]), dtype=dtype), shape) for bound in ("low", "high")
    )
    return spaces.Box(low=low, high=high, shape=shape, dtype=dtype.type)


def _bound_to_json(bound: NDArray[Any]) -> Json:
    # One number stands for an array of equal ones: an image's bounds would otherwise outweigh its policy.
    uniform = bound.size > 0 and bool((bound == bound.flat[0]).all())
    return _json_numbers(bound.flat[0].item() if uniform else bound.tolist())


def _json_numbers(value: Json) -> Json:
    if isinstance(value, list):
        return [_json_numbers(item) for item in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _numbers(value: Json) -> Json:
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) else value
