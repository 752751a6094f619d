from collections.abc import Callable

import onnx
import pytest
from onnx import TensorProto, helper

from serving.policy.errors import BundleInvalid, GraphRejected
from serving.policy.graph_check import check_graph
from tests.serving.policies import cartpole_graph, steering_graph


def test_a_self_contained_graph_passes() -> None:
    check_graph(cartpole_graph().SerializeToString())
    check_graph(steering_graph().SerializeToString())


def external(tensor: onnx.TensorProto) -> onnx.TensorProto:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def with_external_weights() -> onnx.ModelProto:
    model = cartpole_graph()
    external(model.graph.initializer[0])
    return model


def with_external_constant_in_a_branch() -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["value"], value=external(helper.make_tensor("v", 1, [1], [1.0])))
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("value", 1, [1])])
    model = cartpole_graph()
    model.graph.node.append(helper.make_node("If", ["c"], ["o"], then_branch=branch, else_branch=branch))
    return model


def with_custom_operator() -> onnx.ModelProto:
    model = cartpole_graph()
    model.graph.node.append(helper.make_node("Run", ["action"], ["o"], domain="com.example"))
    return model


def with_custom_domain() -> onnx.ModelProto:
    return cartpole_graph(opsets=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)])


def with_local_function() -> onnx.ModelProto:
    model = cartpole_graph()
    model.functions.add(name="f", domain="")
    return model


def with_training_graph() -> onnx.ModelProto:
    model = cartpole_graph()
    model.training_info.add()
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (with_external_weights, "it refers to external data; export it with its weights in the file"),
        (with_external_constant_in_a_branch, "it refers to external data; export it with its weights in the file"),
        (
            with_custom_operator,
            "it uses operators of the domain 'com.example', only standard ONNX operators are served",
        ),
        (
            with_custom_domain,
            "it uses operators of the domain 'com.microsoft', only standard ONNX operators are served",
        ),
        (with_local_function, "it contains a local function, only one plain graph is served"),
        (with_training_graph, "it contains a training graph, only one plain graph is served"),
    ],
)
def test_a_graph_that_is_not_self_contained_is_rejected(make: Callable[[], onnx.ModelProto], message: str) -> None:
    with pytest.raises(GraphRejected) as caught:
        check_graph(make().SerializeToString())
    assert str(caught.value) == f"model.onnx is rejected: {message}"


@pytest.mark.parametrize("keep", [1, 10, 57, 100, -1])
def test_a_truncated_graph_is_invalid(keep: int) -> None:
    with pytest.raises(BundleInvalid, match=r"model\.onnx is not valid: "):
        check_graph(cartpole_graph().SerializeToString()[:keep])


@pytest.mark.parametrize("content", [b"", b"\x0b", b"\xff" * 20, b"PK\x03\x04 a pickle in a zip"])
def test_other_bytes_are_invalid(content: bytes) -> None:
    with pytest.raises(BundleInvalid, match=r"model\.onnx is not valid: "):
        check_graph(content)


def test_too_deeply_nested_subgraphs_are_rejected() -> None:
    graph = b""
    for _ in range(200):  # graph > node (1) > attribute (5) > graph (6)
        for field in (6, 5, 1):
            graph = bytes([field << 3 | 2]) + varint(len(graph)) + graph
    with pytest.raises(GraphRejected, match="nested too deeply"):
        check_graph(bytes([7 << 3 | 2]) + varint(len(graph)) + graph)


def varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded, number = encoded + bytes([number & 0x7F | 0x80]), number >> 7
    return encoded + bytes([number])
