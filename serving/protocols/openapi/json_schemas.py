"""The JSON Schema of a space's elements, and an example of one that can be sent as it is."""

import base64
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.policy.spaces import Json, LeafSpace, children
from serving.protocols.native.base64_arrays import KEYS

MAX_EXAMPLE_NUMBERS = 64
"""A larger array is shown in base64."""


def element_schema(space: Space[Any], *, sent: bool) -> dict[str, Json]:
    """Return the schema of one element; what is `sent` to the server may hold arrays in base64, too."""
    if isinstance(space, spaces.Dict):
        parts = {key: element_schema(child, sent=sent) for key, child in children(space)}
        return {"type": "object", "properties": parts, "required": [*parts], "additionalProperties": False}
    if isinstance(space, spaces.Tuple):
        items = [element_schema(child, sent=sent) for _, child in children(space)]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items), "maxItems": len(items)}
    return _leaf_schema(space, sent=sent)  # type: ignore[arg-type]


def example(space: Space[Any]) -> Json:
    """Return an element of the space: zeros, or what its bounds have nearest to them."""
    if isinstance(space, spaces.Dict):
        return {key: example(child) for key, child in children(space)}
    if isinstance(space, spaces.Tuple):
        return [example(child) for _, child in children(space)]
    array = _nearest_to_zero(space)  # type: ignore[arg-type]  # the rest are leaves
    return array.tolist() if array.size <= MAX_EXAMPLE_NUMBERS else _encoded(array)


def plain_example(space: LeafSpace) -> Json:
    """Return the same for one array as numbers, however many they are."""
    return _nearest_to_zero(space).tolist()


def _leaf_schema(space: LeafSpace, *, sent: bool) -> dict[str, Json]:
    schema = _number(space)
    for length in reversed(space.shape or ()):
        schema = {"type": "array", "items": schema, "minItems": length, "maxItems": length}
    schema |= {"description": str(space)}
    return {"anyOf": [schema, _encoded_schema()]} if sent and space.shape else schema


def _number(space: LeafSpace) -> dict[str, Json]:
    dtype = np.dtype(space.dtype)
    if isinstance(space, spaces.MultiBinary) or dtype.kind == "b":
        return {"enum": [0, 1]} if dtype.kind != "b" else {"enum": [0, 1, True, False]}
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        return {"type": "number", "minimum": -limit, "maximum": limit}
    low, high = _integers(space, dtype)
    return {"type": "integer", "minimum": low, "maximum": high}


def _integers(space: LeafSpace, dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the bounds of all numbers: those of MultiDiscrete differ, so it is the widest that they have."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start) + int(space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.start.min()), int(np.add(space.start, space.nvec).max()) - 1
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _encoded_schema() -> dict[str, Json]:
    properties = {
        "base64": {"type": "string", "contentEncoding": "base64"},
        "dtype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    }
    return {
        "type": "object",
        "description": "The array's bytes in C order, little-endian.",
        "properties": properties,
        "required": sorted(KEYS),
        "additionalProperties": False,
    }


def _nearest_to_zero(space: LeafSpace) -> NDArray[Any]:
    zeros = np.zeros(space.shape or (), space.dtype)
    if isinstance(space, spaces.Box):
        return np.clip(zeros, space.low, space.high).astype(space.dtype)
    start = space.start if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else 0
    return np.asarray(zeros + start, space.dtype)


def _encoded(array: NDArray[Any]) -> Json:
    content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {"base64": base64.b64encode(content).decode(), "dtype": array.dtype.name, "shape": list(array.shape)}
