"""The Open Inference Protocol over HTTP, by hand and with a client of others."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from serving.http.app import PolicyApp
from tests.serving.policies import ask, served

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
def test_health_is_told(app: PolicyApp, path: str, expected: object) -> None:
    assert ask(app, "GET", path).json() == expected


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/3"])
def test_the_model_is_described(app: PolicyApp, path: str) -> None:
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
def test_observations_get_their_actions(app: PolicyApp, path: str) -> None:
    assert infer(app, path, inputs=[CART], id="42", outputs=[{"name": "action"}]) == {
        "model_name": "cartpole-ppo",
        "model_version": "3",
        "id": "42",
        "outputs": [{"name": "action", "datatype": "INT64", "shape": [2], "data": [1, 0]}],
    }


def test_a_state_that_was_reset_is_told(app: PolicyApp) -> None:
    gone = {"name": "state_in.gone", "datatype": "FP32", "shape": [2], "data": [0, 0]}
    told = infer(app, inputs=[CART, gone], parameters={"state_version": "2"})
    assert told["parameters"] == {"state_reset": True}


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v2/models/other", 404, "no model 'other' is served here, only 'cartpole-ppo'"),
        (
            "POST",
            f"{MODEL}/versions/4/infer",
            404,
            "version 4 of 'cartpole-ppo' is not served here, version 3 is: name it, or none",
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


def test_what_only_begins_like_the_protocol_is_none_of_it(app: PolicyApp) -> None:
    assert ask(app, "GET", "/v2x").json()["error"]["code"] == "path_unknown"


def test_requests_are_counted_as_those_of_the_native_route_are(app: PolicyApp) -> None:
    infer(app, inputs=[CART])
    ask(app, "POST", f"{MODEL}/infer")
    assert (app.counts.answered, app.counts.errors) == (1, 1)
    assert app.metrics.refused == {"inference_invalid": 1}


def test_tritonclient_finds_what_it_expects(client: Any) -> None:
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


def test_tritonclient_gets_every_output_where_it_names_none(client: Any) -> None:
    observations = triton.InferInput("observations", [1, 4], "FP32")
    observations.set_data_from_numpy(np.zeros((1, 4), np.float32))
    answer = client.infer("cartpole-ppo", [observations])
    assert answer.as_numpy("action_dist_inputs").tolist() == [[0, 0]]


def test_tritonclient_is_told_what_is_wrong(client: Any) -> None:
    observations = triton.InferInput("observations", [1, 3], "FP32")
    observations.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with pytest.raises(triton.InferenceServerException) as refused:
        client.infer("cartpole-ppo", [observations])
    assert refused.value.message() == "observations has shape (1, 3), expected (batch, 4) float32"
    with pytest.raises(triton.InferenceServerException, match="version 9 of 'cartpole-ppo' is not served here"):
        client.get_model_metadata("cartpole-ppo", "9")
