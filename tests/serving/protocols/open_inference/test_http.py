"""The Open Inference Protocol over HTTP, with plain requests and with tritonclient."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from serving.http.policy_app import PolicyApp
from tests.serving.asking import ask, served

CART = {"name": "observations", "datatype": "FP32", "shape": [2, 4], "data": [0, 0, 1, 0, 0, 0, -1, 0]}
MODEL = "/v2/models/cartpole-ppo"


@pytest.fixture
def client(serve_http: Callable[[Any], str]) -> Any:
    return triton.InferenceServerClient(serve_http(PolicyApp(served())).removeprefix("http://"))


def infer(app: PolicyApp, path: str = f"{MODEL}/infer", **request: Any) -> Any:
    answer = ask(app, "POST", path, json.dumps(request).encode())
    assert answer.status == 200, answer.body
    return answer.json()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
        (f"{MODEL}/ready", {"name": "cartpole-ppo", "ready": True}),
        (f"{MODEL}/versions/3/ready", {"name": "cartpole-ppo", "ready": True}),
    ],
)
def test_health_and_readiness_are_reported(app: PolicyApp, path: str, expected: object) -> None:
    assert ask(app, "GET", path).json() == expected


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/3"])
def test_the_metadata_has_the_models_tensors(app: PolicyApp, path: str) -> None:
    assert ask(app, "GET", path).json() == {
        "name": "cartpole-ppo",
        "versions": ["3"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "observations", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "action", "datatype": "INT64", "shape": [-1]},
            {"name": "action_dist_inputs", "datatype": "FP32", "shape": [-1, 2]},
        ],
    }


@pytest.mark.parametrize("path", [f"{MODEL}/infer", f"{MODEL}/versions/3/infer"])
def test_infer_returns_the_actions(app: PolicyApp, path: str) -> None:
    assert infer(app, path, inputs=[CART], id="42", outputs=[{"name": "action"}]) == {
        "model_name": "cartpole-ppo",
        "model_version": "3",
        "id": "42",
        "outputs": [{"name": "action", "datatype": "INT64", "shape": [2], "data": [1, 0]}],
    }


def test_a_request_of_mlserver_is_answered(app: PolicyApp) -> None:
    """As MLServer 1.7's NumpyRequestCodec writes it, which gives every part of a request its content type."""
    content_type = {"content_type": "np"}
    tensor = CART | {"parameters": content_type}
    outputs = [{"name": "action", "parameters": content_type}]
    answer = infer(app, inputs=[tensor], parameters=content_type, outputs=outputs)
    assert answer["outputs"] == [{"name": "action", "datatype": "INT64", "shape": [2], "data": [1, 0]}]


def test_a_request_of_kserve_is_answered(app: PolicyApp) -> None:
    """As KServe 0.21 writes it: InferRequest("cartpole-ppo", inputs, parameters=...).to_rest()."""
    answer = infer(app, model_name="cartpole-ppo", id="1", inputs=[CART], parameters={"priority": 0, "timeout": 1.5})
    assert answer["outputs"][0]["data"] == [1, 0]


def test_a_replaced_state_is_reported(app: PolicyApp) -> None:
    gone = {"name": "state_in.gone", "datatype": "FP32", "shape": [2], "data": [0, 0]}
    response = infer(app, inputs=[CART, gone], parameters={"state_version": "2"})
    assert response["parameters"] == {"state_reset": True}


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v2/models/other", 404, "no model 'other' is served here, only 'cartpole-ppo'"),
        (
            "POST",
            f"{MODEL}/versions/4/infer",
            404,
            "version 4 of 'cartpole-ppo' is not served here; request version 3, or omit the version",
        ),
        (
            "GET",
            "/v2/repository/index",
            404,
            (
                "no such path: /v2/repository/index; there are /v2, /v2/health/live, /v2/health/ready, "
                "/v2/models/NAME[/versions/VERSION][/ready or /infer]"
            ),
        ),
        ("GET", f"{MODEL}/infer", 405, f"GET is not allowed on {MODEL}/infer, use POST"),
        (
            "POST",
            f"{MODEL}/infer",
            400,
            'the body is not JSON (it is empty), expected an object like {"inputs": [...]}',
        ),
    ],
)
def test_errors_have_the_form_of_the_protocol(
    app: PolicyApp, method: str, path: str, status: int, message: str
) -> None:
    answer = ask(app, method, path)
    assert (answer.status, answer.json()) == (status, {"error": message})


def test_a_path_that_only_starts_with_v2_is_not_of_this_protocol(app: PolicyApp) -> None:
    assert ask(app, "GET", "/v2x").json()["error"]["code"] == "path_unknown"


def test_requests_and_errors_are_counted(app: PolicyApp) -> None:
    infer(app, inputs=[CART])
    ask(app, "POST", f"{MODEL}/infer")
    assert (app.counts.answered, app.counts.errors) == (1, 1)
    assert app.metrics.requests_rejected == {"inference_invalid": 1}


def test_tritonclient_reads_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cartpole-ppo", "3")
    assert not client.is_model_ready("cartpole-ppo", "4")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.get_model_metadata("cartpole-ppo")["versions"] == ["3"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_infers(client: Any, *, binary_in: bool, binary_out: bool) -> None:
    observations = triton.InferInput("observations", [2, 4], "FP32")
    observations.set_data_from_numpy(np.array([[0, 0, 1, 0], [0, 0, -1, 0]], np.float32), binary_data=binary_in)
    outputs = [triton.InferRequestedOutput(name, binary_out) for name in ("action", "action_dist_inputs")]
    answer = client.infer("cartpole-ppo", [observations], "3", outputs, request_id="7")
    assert answer.as_numpy("action").tolist() == [1, 0]
    assert answer.as_numpy("action_dist_inputs").dtype == np.float32
    assert (answer.get_response()["id"], answer.get_response()["model_version"]) == ("7", "3")


def test_tritonclient_receives_all_outputs_by_default(client: Any) -> None:
    observations = triton.InferInput("observations", [1, 4], "FP32")
    observations.set_data_from_numpy(np.zeros((1, 4), np.float32))
    answer = client.infer("cartpole-ppo", [observations])
    assert answer.as_numpy("action_dist_inputs").tolist() == [[0, 0]]


def test_tritonclient_receives_error_messages(client: Any) -> None:
    observations = triton.InferInput("observations", [1, 3], "FP32")
    observations.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("cartpole-ppo", [observations])
    assert caught.value.message() == "observations has shape (1, 3), expected (batch, 4) float32"
    with pytest.raises(triton.InferenceServerException, match="version 9 of 'cartpole-ppo' is not served here"):
        client.get_model_metadata("cartpole-ppo", "9")
