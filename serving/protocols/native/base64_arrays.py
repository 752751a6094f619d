"""The compact JSON form of large arrays: `{"base64": "...", "dtype": "uint8", "shape": [84, 84, 4]}`.

The bytes are in C order, little-endian.
"""

import base64
import binascii
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.policy.spaces import DTYPES, Json
from serving.protocols.errors import ObservationEncoding

MAX_LENGTH = 2**31
MAX_DIMENSIONS = 64
"""The number of dimensions that NumPy supports."""
SHAPE_UNSUPPORTED = "shape has too many or too long dimensions"
KEYS = frozenset({"base64", "dtype", "shape"})


def is_encoded(value: Json) -> bool:
    """Return whether a JSON value is an array in this form, valid or not."""
    return type(value) is dict and "base64" in value


def decode(value: dict[str, Json], path: str) -> NDArray[Any]:
    """Return the array, which is read-only. Raises ObservationEncoding for the value at `path`."""
    if value.keys() != KEYS:
        raise ObservationEncoding(path, f"keys {', '.join(map(str, value))}, expected base64, dtype, shape")
    shape = _shape(value["shape"], path)
    if not isinstance(value["dtype"], str) or value["dtype"] not in DTYPES:
        raise ObservationEncoding(path, f"dtype is unknown, expected one of {', '.join(sorted(DTYPES))}")
    dtype = np.dtype(value["dtype"]).newbyteorder("<")
    content = _bytes(value["base64"], path)
    size = math.prod(shape) * dtype.itemsize
    if len(content) != size:
        expected = f"{size} for shape {shape} {dtype.name}"
        raise ObservationEncoding(path, f"base64 holds {len(content)} bytes, expected {expected}")
    try:
        return np.frombuffer(content, dtype).reshape(shape)
    except ValueError:  # an empty array with longer dimensions than NumPy supports
        raise ObservationEncoding(path, SHAPE_UNSUPPORTED) from None


def _shape(shape: Json, path: str) -> tuple[int, ...]:
    if type(shape) is not list or not all(type(length) is int and 0 <= length <= MAX_LENGTH for length in shape):
        raise ObservationEncoding(path, "shape is not a list of lengths")
    if len(shape) > MAX_DIMENSIONS:
        raise ObservationEncoding(path, SHAPE_UNSUPPORTED)
    return tuple(shape)


def _bytes(text: Json, path: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ObservationEncoding(path, "base64 is not valid") from None
