"""The asyncio twin of `serving.client.client`. It needs aiohttp and nothing else: no ray, no torch, no mlflow."""

import asyncio
from collections.abc import Hashable, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from serving.client.core import Conversation, Json, Question, options_of, reason_of
from serving.client.retry import Call, Lost, Reply


class AsyncPolicyClient(Conversation):
    """Asks a policy server for actions, many requests at once over kept-alive connections, within one event loop.

    Methods, arguments and errors are those of `PolicyClient`. Episodes that are played at once with a recurrent
    policy need names: `act(observation, episode=...)`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._session: aiohttp.ClientSession | None = None

    async def act(
        self, observation: Any, *, explore: bool = False, seed: int | None = None, episode: Hashable = None
    ) -> Json:
        """Return the action for one observation, as `PolicyClient.act`."""
        return (await self.answer(observation, explore=explore, seed=seed, episode=episode))["action"]

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
        options = options_of(explore=explore, seed=seed, details=details)
        answer: dict[str, Json] = await self._ask(self._question(observation, episode, options))
        self._remember(answer, episode)
        return answer

    async def act_batch(
        self,
        observations: Any,
        *,
        explore: bool = False,
        seed: int | None = None,
        episodes: Sequence[Hashable] | None = None,
    ) -> list[Json]:
        """Return the actions for a batch of observations, as `PolicyClient.act_batch`."""
        names = range(len(observations)) if episodes is None else episodes
        answer = await self._ask(self._batch_question(observations, names, options_of(explore=explore, seed=seed)))
        self._remember_batch(answer, names)
        actions: list[Json] = answer["actions"]
        return actions

    async def model(self) -> dict[str, Json]:
        """Return what the server serves, as `PolicyClient.model`."""
        description: dict[str, Json] = await self._ask(Question("GET", "/model"))
        return description

    async def close(self) -> None:
        """Close the connections; another request would open them again."""
        if self._session is not None:
            await self._session.close()
        self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, question: Question) -> Any:
        call = Call(self._patience)
        while (wait := call.wait_after(outcome := await self._attempt(question, call))) is not None:  # noqa: ASYNC110 - a backoff
            await asyncio.sleep(wait)
        return self._understand(outcome)

    async def _attempt(self, question: Question, call: Call) -> Reply | Lost:
        if self._session is None:  # here, for a session belongs to the loop that runs
            self._session = aiohttp.ClientSession(headers=self._headers)
        connect_s, answer_s = call.timeouts_s
        timeout = aiohttp.ClientTimeout(total=call.left_s, sock_connect=connect_s, sock_read=answer_s)
        url = self.url + question.path
        try:
            async with self._session.request(question.method, url, data=question.body, timeout=timeout) as answer:
                return Reply(answer.status, answer.headers, await answer.read())
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            return Lost(reason_of(error), error)
