"""An action of a server's answer becomes an element of its space, in the types that `env.step` takes."""

import asyncio
import builtins
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.client import AsyncPolicyClient, PolicyClient
from serving.client.actions import element
from serving.client.core import to_json
from serving.http.policy_app import PolicyApp
from serving.policy.spaces import space_to_json
from tests.serving.asking import served
from tests.serving.policies import ROBOT, ROBOT_ACTIONS, ROBOT_BUNDLE, STEERING_BUNDLE

SPACES = [
    spaces.Discrete(5, start=-2),
    spaces.Box(-1, 1, (2,), np.float32),
    spaces.Box(-1, 1, (2, 3), np.float64),
    spaces.Box(-1, 1, (), np.float32),
    spaces.Box(-9, 9, (3,), np.int16),
    spaces.Box(0, 255, (4,), np.uint8),
    spaces.MultiDiscrete([[2, 3], [4, 5]]),
    spaces.MultiBinary((2, 2)),
    spaces.Dict(
        {"a": spaces.Box(-1, 1, (2,), np.float32), "b": spaces.Tuple([spaces.Discrete(3), spaces.MultiBinary(2)])}
    ),
]


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, tuple):
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_json_of_an_element_becomes_the_element_again(space: spaces.Space[Any]) -> None:
    space.seed(0)
    for _ in range(10):
        sample = space.sample()
        action = element(space_to_json(space), json.loads(json.dumps(to_json(sample))))
        assert_same(action, sample)
        assert space.contains(action)


@pytest.mark.parametrize("action", [[1, 2, 3], "left", {"a": 1}, None])
def test_what_does_not_fit_the_space_stays_as_it_is(action: Any) -> None:
    assert element(space_to_json(SPACES[-1]), action) is action


def test_clients_return_elements_of_the_action_space(serve_http: Callable[[Any], str]) -> None:
    with PolicyClient(serve_http(PolicyApp(served(ROBOT_BUNDLE)))) as client:
        ROBOT.seed(0)
        for action in (client.act(ROBOT.sample()), *client.act_batch([ROBOT.sample(), ROBOT.sample()])):
            assert ROBOT_ACTIONS.contains(action)
            assert_same(action, element(space_to_json(ROBOT_ACTIONS), json.loads(json.dumps(to_json(action)))))


def test_the_space_follows_a_promotion(app: PolicyApp, serve_http: Callable[[Any], str]) -> None:
    with PolicyClient(serve_http(app)) as client:
        assert type(client.act([0, 0, 1, 0])) is int
        app.served = served(STEERING_BUNDLE, version=4)
        action = client.act([0])
        assert (action.dtype, action.shape, client.model_version) == (np.float32, (1,), 4)


def test_the_asyncio_client_returns_the_same(serve_http: Callable[[Any], str]) -> None:
    async def run(url: str) -> None:
        async with AsyncPolicyClient(url) as client:
            assert (await client.act([0])).dtype == np.float32
            assert [action.shape for action in await client.act_batch([[0], [1]])] == [(1,), (1,)]

    asyncio.run(run(serve_http(PolicyApp(served(STEERING_BUNDLE)))))


def test_without_numpy_a_client_returns_json(serve_http: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *arguments: Any) -> Any:
        if name == "serving.client.actions":
            raise ImportError(name)
        return imported(name, *arguments)

    imported = builtins.__import__
    with PolicyClient(serve_http(PolicyApp(served(STEERING_BUNDLE)))) as client:
        monkeypatch.setattr(builtins, "__import__", refuse)
        assert client.act([0]) == [0.0]
