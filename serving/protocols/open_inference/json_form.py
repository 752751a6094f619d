"""Requests and responses of the Open Inference Protocol over HTTP: JSON, optionally followed by tensors in bytes.

The bytes follow Triton's binary tensor data extension, which KServe shares: a header holds the length of the JSON, and
the tensors whose parameters have a `binary_data_size` follow one after another.
"""

import functools
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import orjson

from serving.policy.spaces import Json, describe
from serving.protocols.errors import BodyNotJson
from serving.protocols.json_body import parse
from serving.protocols.open_inference.datatypes import InputTensor, OutputTensor
from serving.protocols.open_inference.errors import InferenceInvalid
from serving.protocols.open_inference.model import InferenceRequest, check_parameters

JSON_LENGTH = b"inference-header-content-length"
MAX_DIMENSION, MAX_DIGITS = 2**63 - 1, 19
"""The largest dimension of a shape, and its number of digits."""
MAX_CACHED_BYTES = 4096
"""Longer JSON is not cached."""

BINARY_SIZE, BINARY, ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"

EXPECTED_BODY = 'an object like {"inputs": [...]}'


class JsonRequest(NamedTuple):
    """A request, and the form of its outputs."""

    request: InferenceRequest
    binary: Mapping[str, bool]
    """By output, whether it is requested in bytes."""
    all_binary: bool
    """The default for outputs that are not in `binary`."""


TensorLayout = tuple[str, str, tuple[int, ...], list[Json] | slice]
"""Name, datatype, shape, and the elements or their position in the bytes."""


class Layout(NamedTuple):
    """The content of a body's JSON, without the bytes that follow it."""

    id: str
    parameters: dict[str, Json]
    inputs: list[TensorLayout]
    outputs: list[str]
    binary: dict[str, bool]
    all_binary: bool


def read_request(body: bytes, headers: Mapping[bytes, bytes]) -> JsonRequest:
    """Return the content of a request. Raises InferenceInvalid with the path of the invalid part."""
    length = headers.get(JSON_LENGTH)
    size = len(body) if length is None else _json_size(length, len(body))
    header, content = body[:size], body[size:]
    read_layout = _cached_layout if content and size <= MAX_CACHED_BYTES else _layout
    layout = read_layout(header, len(content))
    inputs = [
        InputTensor(name, datatype, shape, content[each] if type(each) is slice else each)
        for name, datatype, shape, each in layout.inputs
    ]
    request = InferenceRequest(layout.id, layout.parameters, inputs, layout.outputs)
    return JsonRequest(request, layout.binary, layout.all_binary)


def write_response(
    response: dict[str, Json], outputs: Iterable[OutputTensor], request: JsonRequest
) -> tuple[bytes, int | None]:
    """Return the body of a response with its outputs, and the length of its JSON, which is None if no bytes follow.

    In JSON, infinite numbers and NaN become null.
    """
    described, contents = [], []
    for name, datatype, array in outputs:
        one: dict[str, Json] = {"name": name, "datatype": datatype, "shape": array.shape}
        if request.binary.get(name, request.all_binary):
            contents.append(array.tobytes())
            one["parameters"] = {BINARY_SIZE: array.nbytes}
        else:
            one["data"] = array.ravel().tolist()
        described.append(one)
    header = orjson.dumps({**response, "outputs": described})
    return b"".join((header, *contents)), len(header) if contents else None


def _json_size(length: bytes, available: int) -> int:
    if not length.isdigit() or len(length) > MAX_DIGITS or int(length) > available:
        found = describe(length.decode(errors="replace"))
        raise InferenceInvalid("Inference-Header-Content-Length", found, f"at most the body's length, {available}")
    return int(length)


def _layout(header: bytes, available: int) -> Layout:
    """Return the content of a body's JSON that is followed by `available` bytes."""
    request = _parsed(header)
    parameters = dict(_optional(request, "", "parameters", dict, {}))
    all_binary = _optional(parameters, "parameters", ALL_BINARY, bool, default=False)
    parameters.pop(ALL_BINARY, None)
    inputs, position = [], 0
    for index, each in enumerate(_required(request, "", "inputs", list)):
        tensor, position = _input(each, f"inputs[{index}]", position, available)
        inputs.append(tensor)
    if position != available:
        raise InferenceInvalid("the body", f"{available - position} bytes longer than its tensors", "no more")
    listed = enumerate(_optional(request, "", "outputs", list, []))
    outputs = [_output(each, f"outputs[{index}]") for index, each in listed]
    binary = {name: flag for name, flag in outputs if flag is not None}
    return Layout(_id(request), parameters, inputs, [name for name, _ in outputs], binary, all_binary)


_cached_layout = functools.lru_cache(maxsize=64)(_layout)
"""Clients that send tensors in bytes repeat the same JSON."""


def _parsed(header: bytes) -> dict[str, Json]:
    try:
        request = parse(header)
    except BodyNotJson as error:
        raise InferenceInvalid("the body", f"not JSON ({error.reason})", EXPECTED_BODY) from None
    if type(request) is not dict:
        raise InferenceInvalid("the body", describe(request), EXPECTED_BODY)
    return request


def _input(value: Json, path: str, position: int, available: int) -> tuple[TensorLayout, int]:
    """Return a tensor of a layout, and the position of the next tensor's bytes."""
    if type(value) is not dict:
        raise InferenceInvalid(path, describe(value), "an object with name, datatype, shape and data")
    name, datatype = (_required(value, path, key, str) for key in ("name", "datatype"))
    shape = tuple(_required(value, path, "shape", list))
    if not all(type(length) is int and 0 <= length <= MAX_DIMENSION for length in shape):
        raise InferenceInvalid(f"{path}.shape", str(list(shape))[:80], "a list of lengths")
    parameters = _optional(value, path, "parameters", dict, {})
    check_parameters(parameters, f"{path}.parameters")
    size = parameters.get(BINARY_SIZE)
    if size is None:
        data = _required(value, path, "data", list)
        return (name, datatype, shape, _flat(data, shape, f"{path}.data")), position
    if type(size) is not int or not 0 <= size <= available - position:
        expected = f"at most {available - position}, the number of remaining bytes"
        raise InferenceInvalid(f"{path}.parameters.{BINARY_SIZE}", describe(size), expected)
    return (name, datatype, shape, slice(position, position + size)), position + size


def _flat(data: list[Json], shape: tuple[int, ...], path: str) -> list[Json]:
    """Return a tensor's elements in one list, from lists that are nested by its shape or already flat."""
    if not data or type(data[0]) is not list:
        return data
    nested: list[Json] = [data]
    for length in shape:
        if not all(type(each) is list and len(each) == length for each in nested):
            raise InferenceInvalid(path, "not nested as its shape is", f"lists for shape {shape}, or one flat list")
        nested = list(chain.from_iterable(nested))
    return nested


def _output(value: Json, path: str) -> tuple[str, bool | None]:
    """Return the name of a requested output, and whether it is requested in bytes; None if not specified."""
    if type(value) is not dict:
        raise InferenceInvalid(path, describe(value), "an object with a name")
    parameters = _optional(value, path, "parameters", dict, {})
    check_parameters(parameters, f"{path}.parameters")
    return _required(value, path, "name", str), _optional(parameters, f"{path}.parameters", BINARY, bool, None)


def _id(request: dict[str, Json]) -> str:
    identifier: str = _optional(request, "", "id", str, "")
    try:
        identifier.encode()
    except UnicodeEncodeError:
        raise InferenceInvalid("id", "half a surrogate pair", "text that UTF-8 can encode") from None
    return identifier


NAMES: dict[type, str] = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}


def _optional(value: dict[str, Json], path: str, key: str, kind: type, default: Any) -> Any:
    return default if value.get(key) is None else _required(value, path, key, kind)


def _required(value: dict[str, Json], path: str, key: str, kind: type) -> Any:
    found = value.get(key)
    if type(found) is kind:
        return found
    where = f"{path}.{key}" if path else key
    raise InferenceInvalid(where, describe(found) if key in value else "missing", NAMES[kind])
