"""The JSON Schema of a space's elements, and an example element that can be sent as it is."""

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from serving.client.core import to_json
from serving.policy.spaces import Json, LeafSpace, children, integer_range, nearest_to_zero
from serving.protocols.openapi.parts import record

MAX_EXAMPLE_NUMBERS = 64
"""The example of a larger array is in base64."""

BASE64_ARRAY = record(
    {
        "base64": {"type": "string", "contentEncoding": "base64"},
        "dtype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    }
) | {"description": "The array's bytes in C order, little-endian."}


def element_schema(space: Space[Any], *, sent: bool) -> dict[str, Json]:
    """Return the schema of one element. With `sent`, for requests, arrays may also be in base64."""
    if isinstance(space, spaces.Dict):
        return record({key: element_schema(child, sent=sent) for key, child in children(space)})
    if isinstance(space, spaces.Tuple):
        items = [element_schema(child, sent=sent) for _, child in children(space)]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items), "maxItems": len(items)}
    return _leaf_schema(space, sent=sent)  # type: ignore[arg-type]


def example(space: Space[Any]) -> Json:
    """Return the valid element nearest to zero. Large arrays are in base64."""
    if isinstance(space, spaces.Dict):
        return {key: example(child) for key, child in children(space)}
    if isinstance(space, spaces.Tuple):
        return [example(child) for _, child in children(space)]
    array = nearest_to_zero(space)  # type: ignore[arg-type]  # the rest are leaves
    return to_json(array, MAX_EXAMPLE_NUMBERS)


def _leaf_schema(space: LeafSpace, *, sent: bool) -> dict[str, Json]:
    schema = _number_schema(space)
    for length in reversed(space.shape or ()):
        schema = {"type": "array", "items": schema, "minItems": length, "maxItems": length}
    schema |= {"description": str(space)}
    return {"anyOf": [schema, BASE64_ARRAY]} if sent and space.shape else schema


def _number_schema(space: LeafSpace) -> dict[str, Json]:
    dtype = np.dtype(space.dtype)
    if dtype.kind == "b":
        return {"enum": [0, 1, True, False]}
    if isinstance(space, spaces.MultiBinary):
        return {"enum": [0, 1]}
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        return {"type": "number", "minimum": -limit, "maximum": limit}
    limits = np.iinfo(dtype)
    low, high = integer_range(space) or (np.array(limits.min), np.array(limits.max))
    # The numbers of a MultiDiscrete share one schema, with their widest bounds.
    return {"type": "integer", "minimum": int(low.min()), "maximum": int(high.max())}
