"""An asyncio HTTP client. It needs aiohttp and no other package."""

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Self

import aiohttp

from serving.client.core import BaseClient, Json, Reply, Request, are_typed, failure_reason, feedback
from serving.client.episodes.batches import by_version, in_order
from serving.client.episodes.episode import AsyncEpisode, pin
from serving.client.episodes.features import FEEDBACK
from serving.client.errors import RequestRefused
from serving.client.retry import Attempts, NoResponse, Response


class AsyncPolicyClient(BaseClient):
    """Queries a policy server with many concurrent requests over persistent connections, within one event loop.

    Methods, arguments and errors are those of `PolicyClient`. Episodes that are played concurrently with a recurrent
    policy need names, `act(observation, episode=...)`, or are begun with `episode`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._session: aiohttp.ClientSession | None = None

    async def act(
        self, observation: Any, *, explore: bool = False, seed: int | None = None, episode: Hashable = None
    ) -> Any:
        """Return the action for one observation, as `PolicyClient.act`."""
        reply = await self._act(self._request(observation, episode, explore=explore, seed=seed))
        return (await self._typed([reply.content["action"]], reply.version))[0]

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
        request = self._request(observation, episode, explore=explore, seed=seed, details=details)
        return (await self._act(request)).content

    async def act_batch(
        self,
        observations: Any,
        *,
        explore: bool = False,
        seed: int | None = None,
        episodes: Sequence[Hashable] | None = None,
    ) -> list[Any]:
        """Return the actions for a batch of observations, as `PolicyClient.act_batch`."""
        groups = by_version(observations, range(len(observations)) if episodes is None else episodes)
        requests = [self._batch_request(group, explore=explore, seed=seed) for group in groups]
        replies = await asyncio.gather(*map(self._send, requests))
        for request, reply in zip(requests, replies, strict=True):
            self._keep_states(request, reply)
        return in_order(groups, [await self._typed(reply.content["actions"], reply.version) for reply in replies])

    def episode(self, id: str | None = None) -> AsyncEpisode:  # noqa: A002 - the word of the protocol
        """Begin an episode: `async with client.episode() as episode`, as `PolicyClient.episode`.

        Its methods `act` and `end` are awaited.
        """
        return AsyncEpisode(self, id)

    async def feedback(self, *events: Mapping[str, Any]) -> bool:
        """Report what followed from actions, as `PolicyClient.feedback`."""
        if not self._features.has(FEEDBACK):
            return False
        try:
            return bool((await self._send(feedback(events))).content.get("accepted"))
        except RequestRefused as error:
            self._features.note_refusal(FEEDBACK, error)
            return False

    async def model(self) -> dict[str, Json]:
        """Return the description of the served model, as `PolicyClient.model`."""
        return (await self._send(Request("GET", "/model"))).content

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        if self._session is not None:
            await self._session.close()
        self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _typed(self, actions: list[Json], version: int) -> list[Any]:
        if are_typed(actions):
            return actions
        if version not in self._action_spaces:
            described = await self._send(Request("GET", "/model", headers=pin(version)))
            self._keep_space(version, described.content)
        return self._elements(actions, self._action_spaces[version])

    async def _act(self, request: Request) -> Reply:
        reply = await self._send(request)
        self._keep_states(request, reply)
        return reply

    async def _send(self, request: Request) -> Reply:
        try:
            return await self._exchange(request)
        except RequestRefused as error:
            return await self._exchange(self._unnamed(request, error))

    async def _exchange(self, request: Request) -> Reply:
        attempts = Attempts(self._retry_policy)
        while (delay := attempts.delay_after(outcome := await self._attempt(request, attempts))) is not None:  # noqa: ASYNC110 - the delay of a retry
            await asyncio.sleep(delay)
        return self._reply(request, outcome)

    async def _attempt(self, request: Request, attempts: Attempts) -> Response | NoResponse:
        if self._session is None:  # A session belongs to the running event loop, so the constructor cannot create it.
            self._session = aiohttp.ClientSession(headers=self._headers)
        connect_s, response_s = attempts.timeouts_s
        timeout = aiohttp.ClientTimeout(total=attempts.remaining_s, sock_connect=connect_s, sock_read=response_s)
        url = self.url + request.path
        try:
            async with self._session.request(
                request.method, url, data=request.body, headers=request.headers, timeout=timeout, proxy=self._proxy
            ) as response:
                return Response(response.status, response.headers, await response.read())
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError.
            return NoResponse(failure_reason(error), error)
