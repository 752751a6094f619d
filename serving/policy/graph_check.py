"""Rejects ONNX graphs that are not self-contained.

A graph can make ONNX Runtime load tensors from files of the working directory, and operators from custom libraries. A
graph from the registry may do neither. The check decodes the protobuf messages that can contain such references
(ModelProto of onnx.proto) and skips tensor contents. It does not need the onnx package.
"""

from collections.abc import Iterator

from serving.policy.errors import BundleInvalid, GraphRejected

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
MAX_DEPTH = 64
"""The maximum nesting of messages. A subgraph is three levels below the graph that contains it."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_VARINT_BITS = 70
CONTINUES = 0x80


MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "operator_set", 20: "training graph", 25: "local function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse_tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse_tensor", 23: "sparse_tensor"},
    "sparse_tensor": {1: "tensor", 2: "tensor"},
    "operator_set": {},
    "tensor": {},
}
"""The message type in each field of each message, for the fields that can contain a node or a tensor."""
DOMAIN_FIELD = {"node": 7, "operator_set": 1}
EXTERNAL_DATA_FIELDS = (13, 14)


def check_graph(model: bytes) -> None:
    """Check that a serialized ONNX model is self-contained.

    Raises:
        GraphRejected: it has external data, operators of other domains, local functions or training graphs.
        BundleInvalid: the bytes are not a protobuf message with a graph.
    """
    if not _check(memoryview(model), "model", depth=0):
        raise BundleInvalid("model.onnx", "it contains no graph")


def _check(message: memoryview, kind: str, depth: int) -> bool:
    """Check a message and all messages in it. Return whether it directly contains a graph."""
    if depth > MAX_DEPTH:
        raise GraphRejected("its subgraphs are nested too deeply")
    found = False
    for number, value in _fields(message):
        _check_field(number, value, kind)
        child = MESSAGES[kind].get(number)
        if child is not None and isinstance(value, memoryview):
            if child not in MESSAGES:
                raise GraphRejected(f"it contains a {child}, only one plain graph is served")
            _check(value, child, depth + 1)
            found = found or child == "graph"
    return found


def _check_field(number: int, value: int | memoryview, kind: str) -> None:
    if kind == "tensor" and number in EXTERNAL_DATA_FIELDS and value != 0:
        raise GraphRejected("it refers to external data; export it with its weights in the file")
    if DOMAIN_FIELD.get(kind) == number and isinstance(value, memoryview):
        domain = bytes(value).decode(errors="replace")
        if domain not in STANDARD_DOMAINS:
            raise GraphRejected(f"it uses operators of the domain '{domain}', only standard ONNX operators are served")


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the number and value of each field of a protobuf message (protobuf.dev/programming-guides/encoding).

    The value is an int for varints, and bytes for all other types.
    """
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, position = _varint(message, position)
            yield number, value
        else:
            length, position = _length(message, position, wire_type)
            yield number, message[position : position + length]
            position += length


def _length(message: memoryview, position: int, wire_type: int) -> tuple[int, int]:
    if wire_type == BYTES:
        length, position = _varint(message, position)
    elif wire_type in (FIXED32, FIXED64):
        length = 4 if wire_type == FIXED32 else 8
    else:  # groups, which onnx.proto does not use
        raise BundleInvalid("model.onnx", f"it has the protobuf wire type {wire_type} at byte {position}")
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
