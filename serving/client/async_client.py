"""An asyncio HTTP client. It needs aiohttp and no other package."""

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any, Self

import aiohttp

from serving.client.core import BaseClient, Json, Request, are_typed, failure_reason
from serving.client.retry import Attempts, NoResponse, Response


class AsyncPolicyClient(BaseClient):
    """Queries a policy server with many concurrent requests over persistent connections, within one event loop.

    Methods, arguments and errors are those of `PolicyClient`. Episodes that are played concurrently with a recurrent
    policy need names: `act(observation, episode=...)`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._session: aiohttp.ClientSession | None = None

    async def act(
        self, observation: Any, *, explore: bool = False, seed: int | None = None, episode: Hashable = None
    ) -> Any:
        """Return the action for one observation, as `PolicyClient.act`."""
        answer = await self.answer(observation, explore=explore, seed=seed, episode=episode)
        return (await self._typed([answer["action"]]))[0]

    async def answer(
        self,
        observation: Any,
        *,
        explore: bool = False,
        seed: int | None = None,
        details: bool = False,
        episode: Hashable = None,
    ) -> dict[str, Json]:
        """Return the server's whole answer for one observation, as `PolicyClient.answer`."""
        return await self._send(self._request(observation, episode, explore=explore, seed=seed, details=details))

    async def act_batch(
        self,
        observations: Any,
        *,
        explore: bool = False,
        seed: int | None = None,
        episodes: Sequence[Hashable] | None = None,
    ) -> list[Any]:
        """Return the actions for a batch of observations, as `PolicyClient.act_batch`."""
        answer = await self._send(self._batch_request(observations, episodes, explore=explore, seed=seed))
        return await self._typed(answer["actions"])

    async def model(self) -> dict[str, Json]:
        """Return the description of the served model, as `PolicyClient.model`."""
        return await self._send(Request("GET", "/model"))

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        if self._session is not None:
            await self._session.close()
        self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _typed(self, actions: list[Json]) -> list[Any]:
        if are_typed(actions):
            return actions
        version = self.model_version
        if self._action_space[0] != version:
            self._action_space = version, (await self.model())["action_space"]
            self.model_version = version
        return self._elements(actions, self._action_space[1])

    async def _send(self, request: Request) -> dict[str, Json]:
        attempts = Attempts(self._retry_policy)
        while (delay := attempts.delay_after(outcome := await self._attempt(request, attempts))) is not None:  # noqa: ASYNC110 - the delay of a retry
            await asyncio.sleep(delay)
        return self._content(request, outcome)

    async def _attempt(self, request: Request, attempts: Attempts) -> Response | NoResponse:
        if self._session is None:  # A session belongs to the running event loop, so the constructor cannot create it.
            self._session = aiohttp.ClientSession(headers=self._headers)
        connect_s, response_s = attempts.timeouts_s
        timeout = aiohttp.ClientTimeout(total=attempts.remaining_s, sock_connect=connect_s, sock_read=response_s)
        url = self.url + request.path
        try:
            async with self._session.request(request.method, url, data=request.body, timeout=timeout) as response:
                return Response(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError.
            return NoResponse(failure_reason(error), error)
