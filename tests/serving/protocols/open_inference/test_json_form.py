import json
from typing import Any

import numpy as np
import pytest

from serving.protocols.open_inference.datatypes import OutputTensor
from serving.protocols.open_inference.errors import InferenceInvalid
from serving.protocols.open_inference.json_form import read_request, write_response

TENSOR = {"name": "x", "datatype": "FP32", "shape": [2, 2]}
HERE = TENSOR | {"data": [1, 2, 3, 4]}


def body(**request: Any) -> bytes:
    return json.dumps(request).encode()


def followed_by(content: bytes, **request: Any) -> tuple[bytes, dict[bytes, bytes]]:
    header = body(**request)
    return header + content, {b"inference-header-content-length": str(len(header)).encode()}


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_data_is_flat_or_nested(data: list[Any]) -> None:
    (tensor,) = read_request(body(inputs=[TENSOR | {"data": data}]), {}).request.inputs
    assert tensor.elements == [1, 2, 3, 4]


def test_the_bytes_after_the_json_belong_to_the_tensors_in_order() -> None:
    sizes = (2, 0, 3)
    inputs = [TENSOR | {"parameters": {"binary_data_size": size}} for size in sizes]
    found = read_request(*followed_by(b"aabbb", inputs=[inputs[0], HERE, *inputs[1:]])).request.inputs
    assert [tensor.elements for tensor in found] == [b"aa", [1, 2, 3, 4], b"", b"bbb"]


def test_identifier_parameters_and_outputs_are_read_request() -> None:
    outputs = [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}]
    request = read_request(
        body(id="7", inputs=[], outputs=outputs, parameters={"binary_data_output": True, "seed": 1, "deep": None}), {}
    )
    assert request.request == ("7", {"seed": 1, "deep": None}, [], ["a", "b"])
    assert (request.binary, request.all_binary) == ({"a": False}, True)


def test_parameters_of_tensors_that_belong_to_other_servers_are_ignored() -> None:
    others = {"parameters": {"content_type": "np", "headers": None}}
    request = read_request(body(inputs=[HERE | others], outputs=[{"name": "a"} | others]), {}).request
    assert (request.outputs, request.inputs[0].elements) == (["a"], [1, 2, 3, 4])


def test_each_output_is_written_in_the_requested_form() -> None:
    request = read_request(
        body(inputs=[], outputs=[{"name": "a"}, {"name": "b", "parameters": {"binary_data": True}}]), {}
    )
    outputs = [
        OutputTensor("a", "FP32", np.array([[1.5, np.inf]], np.float32)),
        OutputTensor("b", "INT64", np.array([1, 2])),
    ]
    written, json_length = write_response({"model_name": "m"}, outputs, request)
    assert json_length is not None
    assert written[json_length:] == np.array([1, 2], "<i8").tobytes()
    assert json.loads(written[:json_length]) == {
        "model_name": "m",
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.5, None]},
            {"name": "b", "datatype": "INT64", "shape": [2], "parameters": {"binary_data_size": 16}},
        ],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", 'the body is not JSON (it is empty), expected an object like {"inputs": [...]}'),
        (b"[]", 'the body is a list, expected an object like {"inputs": [...]}'),
        (b"{}", "inputs is missing, expected a list"),
        (body(inputs={}), "inputs is an object, expected a list"),
        (body(inputs=[], id=7), "id is 7, expected a string"),
        (b'{"inputs": [], "id": "\\ud800"}', "id is half a surrogate pair, expected text that UTF-8 can encode"),
        (
            body(inputs=[HERE | {"shape": [2**63, 2]}]),
            "inputs[0].shape: [9223372036854775808, 2], expected a list of lengths",
        ),
        (body(inputs=[], parameters=[]), "parameters is a list, expected an object"),
        (body(inputs=[], outputs=["a"]), 'outputs[0] is the string "a", expected an object with a name'),
        (body(inputs=[], outputs=[{}]), "outputs[0].name: missing, expected a string"),
        (
            body(inputs=[], outputs=[{"name": "a", "parameters": {"classification": 2}}]),
            "outputs[0].parameters.classification: an unsupported extension, expected only that of binary tensors",
        ),
        (
            body(inputs=[TENSOR | {"parameters": {"shared_memory_region": "a"}}]),
            "inputs[0].parameters.shared_memory_region: an unsupported extension, expected only that of binary tensors",
        ),
        (
            body(inputs=[], outputs=[{"name": "a", "parameters": {"binary_data": 1}}]),
            "outputs[0].parameters.binary_data: 1, expected true or false",
        ),
        (body(inputs=[1]), "inputs[0] is 1, expected an object with name, datatype, shape and data"),
        (body(inputs=[{"name": "x"}]), "inputs[0].datatype: missing, expected a string"),
        (body(inputs=[TENSOR]), "inputs[0].data: missing, expected a list"),
        (body(inputs=[HERE | {"shape": [2, -2]}]), "inputs[0].shape: [2, -2], expected a list of lengths"),
        (
            body(inputs=[HERE | {"data": [[1, 2], [3]]}]),
            "inputs[0].data: not nested as its shape is, expected lists for shape (2, 2), or one flat list",
        ),
        (
            body(inputs=[HERE | {"parameters": {"binary_data_size": 1}}]),
            "inputs[0].parameters.binary_data_size: 1, expected at most 0, the number of remaining bytes",
        ),
    ],
)
def test_an_invalid_part_is_rejected_with_its_path(content: bytes, message: str) -> None:
    with pytest.raises(InferenceInvalid) as caught:
        read_request(content, {})
    assert str(caught.value) == message


@pytest.mark.parametrize("length", [b"-1", b"x", b"3", b"9" * 5000, b"0" * 5000])
def test_a_json_length_that_does_not_fit_the_body_is_rejected(length: bytes) -> None:
    with pytest.raises(InferenceInvalid, match="expected at most the body's length, 2"):
        read_request(b"{}", {b"inference-header-content-length": length})


def test_bytes_that_belong_to_no_tensor_are_rejected() -> None:
    with pytest.raises(InferenceInvalid, match="the body is 2 bytes longer than its tensors, expected no more"):
        read_request(*followed_by(b"aa", inputs=[HERE]))
