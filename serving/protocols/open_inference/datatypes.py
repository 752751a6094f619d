"""The tensors of the Open Inference Protocol: datatypes by name, elements as bytes or as a list in row-major order."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.policy.spaces import Json
from serving.protocols.native.leaf_reader import describe
from serving.protocols.open_inference.errors import InferenceInvalid

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
"""All of the protocol's but BYTES, which no policy takes. Bytes are little-endian."""

DATATYPES = {dtype.name: datatype for datatype, dtype in DTYPES.items()}
"""The protocol's name of a NumPy dtype's."""

ELEMENTS: dict[str, tuple[frozenset[type], str]] = {
    "b": (frozenset({bool}), "true or false"),
    "i": (frozenset({int}), "an integer"),
    "u": (frozenset({int}), "an integer"),
    "f": (frozenset({int, float}), "a number"),
}
"""What elements of each kind are in JSON, and what to call them."""


class TensorInfo(NamedTuple):
    """What metadata says of an input or an output."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 stands for the batch."""


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
    """Return the tensor as an array, which may be read-only.

    Raises:
        InferenceInvalid: its elements are not those of its datatype and shape.
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
    # NumPy would take strings, booleans and None for numbers.
    if not allowed.issuperset(map(type, tensor.elements)):
        index = next(index for index, each in enumerate(tensor.elements) if type(each) not in allowed)
        raise InferenceInvalid(f"{tensor.name}.data[{index}]", describe(tensor.elements[index]), expected)
    try:
        with np.errstate(over="ignore"):
            return np.array(tensor.elements, dtype)
    except OverflowError:
        raise InferenceInvalid(f"{tensor.name}.data", "a number out of its range", tensor.datatype) from None
