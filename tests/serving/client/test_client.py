import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import requests

from serving.client.client import PolicyClient
from serving.client.core import to_json
from serving.client.errors import RequestRefused, ServerUnreachable
from serving.http.policy_app import PolicyApp
from tests.serving.asking import served
from tests.serving.policies import (
    COUNTING_BUNDLE,
    EXPLORING_BUNDLE,
    ROBOT,
    ROBOT_ACTIONS,
    ROBOT_BUNDLE,
    STEERING_BUNDLE,
)


@pytest.fixture
def client(app: PolicyApp, serve_http: Callable[[Any], str]) -> Any:
    with PolicyClient(serve_http(app)) as client:
        yield client


def test_act_returns_an_action_and_records_the_model_version(client: PolicyClient) -> None:
    assert client.act(np.array([0, 0, 1, 0], np.float32)) == 1
    assert client.act([0, 0, -1, 0]) == 0
    assert client.model_version == 3


def test_act_batch_returns_one_action_per_observation(client: PolicyClient) -> None:
    observations = [np.array([0, 0, 1, 0], np.float32), np.array([0, 0, -1, 0], np.float32)]
    assert client.act_batch(observations) == [1, 0]
    assert client.act_batch(np.stack(observations)) == [1, 0]


@pytest.fixture
def counting() -> PolicyApp:
    return PolicyApp(served(COUNTING_BUNDLE))


@pytest.fixture
def connect(serve_http: Callable[[Any], str]) -> Iterator[Callable[[PolicyApp], PolicyClient]]:
    with contextlib.ExitStack() as stack:
        yield lambda app: stack.enter_context(PolicyClient(serve_http(app)))


Connect = Callable[[PolicyApp], PolicyClient]


def test_the_state_is_sent_back_until_reset(counting: PolicyApp, connect: Connect) -> None:
    client = connect(counting)
    assert [client.act([2]), client.act([-1]), client.act([-2])] == [1, 1, 0]
    client.reset()
    assert client.act([-1]) == 0


def test_each_episode_of_a_batch_has_its_own_state(counting: PolicyApp, connect: Connect) -> None:
    client = connect(counting)
    assert client.act_batch([[2], [-2], [3]], episodes=["a", "b", "c"]) == [1, 0, 1]
    assert client.act_batch([[-2], [-1]], episodes=["c", "a"]) == [1, 1]
    client.reset("a")
    assert client.act_batch([[-0.5], [-1], [1]], episodes=["c", "a", "b"]) == [1, 0, 0]
    assert client.act_batch([[1], [1]]) == [1, 1]


def test_a_promotion_resets_the_state_and_sets_state_reset(counting: PolicyApp, connect: Connect) -> None:
    client = connect(counting)
    client.act([5])
    client.act_batch([[5]])
    counting.served = served(COUNTING_BUNDLE, version=4)
    assert client.act([-1]) == 0
    assert client.state_reset
    assert client.act([2]) == 1
    assert not client.state_reset
    assert client.act_batch([[-1], [1]]) == [0, 1]
    assert client.state_reset
    counting.served = served(STEERING_BUNDLE, version=5)
    assert client.act([0]) == [0.0]
    assert client.state_reset
    assert client.act([0]) == [0.0]
    assert not client.state_reset


def test_explore_samples_actions_and_details_describe_them(connect: Connect) -> None:
    client = connect(PolicyApp(served(EXPLORING_BUNDLE)))
    undecided = np.zeros((40, 4), np.float32)
    sampled = client.act_batch(undecided, explore=True, seed=0)
    assert set(sampled) == {0, 1}
    assert client.act_batch(undecided, explore=True, seed=0) == sampled
    assert client.act(undecided[0], explore=True, seed=0) == sampled[0]
    assert client.answer([0, 0, 1, 0], details=True)["details"]["value"] == 1.0


@pytest.mark.filterwarnings("ignore:.*Casting input x to numpy array")
def test_nested_observations_and_actions_are_converted(connect: Connect) -> None:
    client = connect(PolicyApp(served(ROBOT_BUNDLE)))
    samples = [ROBOT.sample() for _ in range(3)]
    assert all(ROBOT_ACTIONS.contains(action) for action in client.act_batch(samples))
    assert ROBOT_ACTIONS.contains(client.act(samples[0]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", np.int16])
def test_large_arrays_are_sent_in_base64_with_the_same_result(connect: Connect, dtype: Any) -> None:
    observations = np.random.default_rng(0).integers(-9, 9, (500, 4)).astype(dtype)
    client = connect(PolicyApp(served()))
    assert client.act_batch(observations) == client.act_batch(observations.tolist())
    assert len(json.dumps(to_json(observations.astype(np.float32)))) < 11_000


def test_model_returns_the_models_description(client: PolicyClient) -> None:
    assert client.model()["environment"] == {"id": "CartPole-v1", "kwargs": {}}


def test_a_rejected_request_raises_the_servers_message(client: PolicyClient) -> None:
    with pytest.raises(RequestRefused) as caught:
        client.act([1, 2, 3])
    assert (caught.value.status, caught.value.code) == (422, "observation_shape")
    assert str(caught.value) == (
        "the server answered 422 observation_shape: observation has shape (3,), expected (4,) float32"
    )


def test_nan_is_rejected_with_the_servers_message(client: PolicyClient) -> None:
    with pytest.raises(RequestRefused, match=r"observation\[0\] is NaN"):
        client.act(np.array([np.nan, 0, 0, 0]))


def test_an_unreachable_server_raises_an_error_with_the_remedy() -> None:
    with pytest.raises(ServerUnreachable) as caught:
        PolicyClient("http://127.0.0.1:1/cartpole-ppo").act([0])
    assert str(caught.value) == (
        "no policy server answers at http://127.0.0.1:1/cartpole-ppo (connection refused). "
        "Start one: python -m serving run"
    )


def test_a_response_of_another_server_raises_server_unreachable(serve_http: Callable[[Any], str]) -> None:
    async def other(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>"})

    with pytest.raises(ServerUnreachable, match="HTTP status 404 from another server"):
        PolicyClient(serve_http(other)).act([0])


def test_the_client_of_the_ray_serve_tutorial_works_unchanged(app: PolicyApp, serve_http: Callable[[Any], str]) -> None:
    url = serve_http(app).replace("127.0.0.1", "localhost")
    observation = np.array([0, 0, 1, 0], np.float32)
    assert requests.get(url, json={"observation": observation.tolist()}).json() == {"action": 1}
