import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import requests

from serving.client import PolicyClient
from serving.errors import RequestRefused, ServerUnreachable
from serving.routes import PolicyApp


@pytest.fixture
def client(app: PolicyApp, serve_http: Callable[[Any], str]) -> Any:
    with PolicyClient(serve_http(app)) as client:
        yield client


def test_a_client_gets_an_action_and_learns_the_version(client: PolicyClient) -> None:
    assert client.act(np.array([0, 0, 1, 0], np.float32)) == 1
    assert client.act([0, 0, -1, 0]) == 0
    assert client.model_version == 3


def test_a_client_gets_a_batch_of_actions(client: PolicyClient) -> None:
    observations = [np.array([0, 0, 1, 0], np.float32), np.array([0, 0, -1, 0], np.float32)]
    assert client.act_batch(observations) == [1, 0]
    assert client.act_batch(np.stack(observations)) == [1, 0]


def test_a_client_gets_the_models_description(client: PolicyClient) -> None:
    assert client.model()["environment"] == {"id": "CartPole-v1", "kwargs": {}}


def test_a_refusal_carries_the_servers_reason(client: PolicyClient) -> None:
    with pytest.raises(RequestRefused) as caught:
        client.act([1, 2, 3])
    assert (caught.value.status, caught.value.code) == (422, "observation_shape")
    assert str(caught.value) == (
        "the server answered 422 observation_shape: observation has shape (3,), expected (4,) float32"
    )


def test_nan_is_refused_with_the_servers_reason(client: PolicyClient) -> None:
    with pytest.raises(RequestRefused, match=r"observation\[0\] is NaN"):
        client.act(np.array([np.nan, 0, 0, 0]))


def test_no_server_is_named_with_the_remedy() -> None:
    with pytest.raises(ServerUnreachable) as caught:
        PolicyClient("http://127.0.0.1:1/cartpole-ppo").act([0])
    assert str(caught.value) == (
        "no policy server answers at http://127.0.0.1:1/cartpole-ppo (connection refused). "
        "Start one: python -m serving run"
    )


def test_another_server_is_not_taken_for_ours(serve_http: Callable[[Any], str]) -> None:
    async def other(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>"})

    with pytest.raises(ServerUnreachable, match="HTTP status 404 from another server"):
        PolicyClient(serve_http(other)).act([0])


def test_the_tutorials_client_works_unchanged(app: PolicyApp, serve_http: Callable[[Any], str]) -> None:
    url = serve_http(app).replace("127.0.0.1", "localhost")
    observation = np.array([0, 0, 1, 0], np.float32)
    assert requests.get(url, json={"observation": observation.tolist()}).json() == {"action": 1}


def test_the_client_needs_neither_ray_nor_torch_nor_mlflow() -> None:
    code = "import sys, serving.client; print({'ray', 'torch', 'mlflow', 'onnxruntime', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"
