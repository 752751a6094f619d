import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from serving.client.async_client import AsyncPolicyClient
from serving.http.policy_app import PolicyApp
from tests.serving.asking import served
from tests.serving.policies import COUNTING_BUNDLE


def test_many_requests_are_sent_concurrently(app: PolicyApp, serve_http: Callable[[Any], str]) -> None:
    async def run(url: str) -> None:
        async with AsyncPolicyClient(url) as client:
            observations = [np.array([0, 0, side, 0], np.float32) for side in (1, -1) * 50]
            assert await asyncio.gather(*map(client.act, observations)) == [1, 0] * 50
            assert await client.act_batch(observations[:2]) == [1, 0]
            assert client.model_version == (await client.model())["version"] == 3

    asyncio.run(run(serve_http(app)))


def test_concurrent_episodes_have_their_own_states(serve_http: Callable[[Any], str]) -> None:
    async def run(url: str) -> None:
        async with AsyncPolicyClient(url) as client:
            await asyncio.gather(*(client.act([start], episode=start) for start in (2, -2)))
            assert await asyncio.gather(client.act([-1], episode=2), client.act([1], episode=-2)) == [1, 0]
            client.reset(2)
            assert await client.act([-1], episode=2) == 0

    asyncio.run(run(serve_http(PolicyApp(served(COUNTING_BUNDLE)))))
