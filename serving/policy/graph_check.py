"""What an ONNX graph may contain, read off its bytes.

ONNX Runtime loads tensors from files (given bytes: of the working directory) when a graph says so, and
custom operators where a library offers them. A graph of the registry may do neither. The check walks the few
protobuf messages that matter (onnx.proto, ModelProto) and skips tensor contents, without the onnx package.
"""

from collections.abc import Iterator
from typing import NamedTuple

from serving.policy.errors import BundleInvalid, GraphRefused

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
MAX_DEPTH = 64
"""Subgraphs nested deeper than this are refused; exporters reach 3."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BITS = 70
CONTINUES = 0x80


class Field(NamedTuple):
    """One field of a protobuf message: `value` is an int for varints, else the bytes."""

    number: int
    value: int | memoryview


# Message -> field number -> message of that field. Only what can lead to a node or a tensor.
MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "operator_set", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse_tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse_tensor",
        23: "sparse_tensor",
    },
    "sparse_tensor": {1: "tensor", 2: "tensor"},
    "operator_set": {},
    "tensor": {},
}
DOMAIN_FIELD = {"node": 7, "operator_set": 1}
EXTERNAL_DATA_FIELDS = (13, 14)


def check_graph(model: bytes) -> None:
    """Refuse a serialized ONNX model that isn't self-contained.

    Raises:
        GraphRefused: it refers to external data, other operator domains, local functions or training graphs.
        BundleInvalid: the bytes are no protobuf message.
    """
    if not _check(memoryview(model), "model", depth=0):
        raise BundleInvalid("model.onnx", "it holds no graph")


def _check(message: memoryview, kind: str, depth: int) -> bool:
    """Check one message and those in it; return whether any lay in it."""
    if depth > MAX_DEPTH:
        raise GraphRefused("its subgraphs are nested too deeply")
    found = False
    for field in _fields(message):
        _check_field(field, kind)
        child = MESSAGES[kind].get(field.number)
        if child is not None and isinstance(field.value, memoryview):
            _refuse_kind(child)
            _check(field.value, child, depth + 1)
            found = found or child == "graph"
    return found


def _refuse_kind(kind: str) -> None:
    if kind not in MESSAGES:
        raise GraphRefused(f"it holds a {kind}, only one plain graph is served")


def _check_field(field: Field, kind: str) -> None:
    if kind == "tensor" and field.number in EXTERNAL_DATA_FIELDS and field.value != 0:
        raise GraphRefused("it refers to external data; export it with its weights inside")
    if DOMAIN_FIELD.get(kind) == field.number and isinstance(field.value, memoryview):
        domain = bytes(field.value).decode(errors="replace")
        if domain not in STANDARD_DOMAINS:
            raise GraphRefused(f"it uses operators of the domain '{domain}', only standard ONNX operators are served")


def _fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a protobuf message (encoding: protobuf.dev/programming-guides/encoding)."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, position = _varint(message, position)
            yield Field(number, value)
        else:
            length, position = _length(message, position, wire_type)
            yield Field(number, message[position : position + length])
            position += length


def _length(message: memoryview, position: int, wire_type: int) -> tuple[int, int]:
    if wire_type == BYTES:
        length, position = _varint(message, position)
    elif wire_type in (FIXED32, FIXED64):
        length = 4 if wire_type == FIXED32 else 8
    else:  # groups, long deprecated: onnx.proto has none
        raise BundleInvalid("model.onnx", f"protobuf wire type {wire_type} at byte {position}")
    if position + length > len(message):
        raise BundleInvalid("model.onnx", "it is truncated")
    return length, position


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message) or shift >= MAX_VARINT_BITS:
            raise BundleInvalid("model.onnx", "it is truncated")
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if not byte & CONTINUES:
            return value, position
