"""The tensors of the Open Inference Protocol: datatypes, and elements as bytes or as lists in row-major order."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.policy.spaces import Json, describe
from serving.protocols.open_inference.errors import InferenceInvalid

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
"""The protocol's datatypes except BYTES, which no policy accepts. The byte order is little-endian."""

DATATYPES = {dtype.name: datatype for datatype, dtype in DTYPES.items()}
"""The protocol's datatypes by the names of NumPy's dtypes."""

ELEMENTS: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true or false"),
    "i": (frozenset({int}), "an integer"),
    "u": (frozenset({int}), "an integer"),
    "f": (frozenset({int, float}), "a number"),
}
"""The Python types of JSON elements by the kind of dtype, and their description in error messages."""


class TensorInfo(NamedTuple):
    """The metadata of an input or an output; the batch dimension of `shape` is -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class InputTensor(NamedTuple):
    """A tensor of a request."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: bytes | Sequence[Json]
    """Little-endian bytes, or a flat list."""


class OutputTensor(NamedTuple):
    """A tensor of a response."""

    name: str
    datatype: str
    array: NDArray[Any]


def array_of(tensor: InputTensor) -> NDArray[Any]:
    """Return the tensor as an array of its shape and datatype, which may be read-only.

    Raises:
        InferenceInvalid: the elements do not match the datatype or the shape.
    """
    dtype = DTYPES.get(tensor.datatype)
    if dtype is None:
        raise InferenceInvalid(f"{tensor.name}.datatype", describe(tensor.datatype), f"one of {', '.join(DTYPES)}")
    size = math.prod(tensor.shape)
    if isinstance(tensor.elements, bytes):
        if len(tensor.elements) != size * dtype.itemsize:
            expected = f"{size * dtype.itemsize} for shape {tensor.shape} {tensor.datatype}"
            raise InferenceInvalid(tensor.name, f"{len(tensor.elements)} bytes", expected)
        array = np.frombuffer(tensor.elements, dtype).reshape(tensor.shape)
        if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
            raise InferenceInvalid(tensor.name, "a byte that is neither 0 nor 1", tensor.datatype)
        return array
    if len(tensor.elements) != size:
        found = f"a tensor of {len(tensor.elements)} elements"
        raise InferenceInvalid(tensor.name, found, f"{size} for shape {tensor.shape}")
    return _from_list(tensor, dtype).reshape(tensor.shape)


def _from_list(tensor: InputTensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    allowed, expected = ELEMENTS[dtype.kind]
    # NumPy would convert strings, booleans and None to numbers.
    if not allowed.issuperset(map(type, tensor.elements)):
        index = next(index for index, each in enumerate(tensor.elements) if type(each) not in allowed)
        raise InferenceInvalid(f"{tensor.name}.data[{index}]", describe(tensor.elements[index]), expected)
    try:
        with np.errstate(over="ignore"):
            return np.array(tensor.elements, dtype)
    except OverflowError:
        raise InferenceInvalid(f"{tensor.name}.data", "a number outside its range", tensor.datatype) from None
