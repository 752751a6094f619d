"""Dynamic batching: observations of several requests computed at once, where that is cheaper than one by one."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from serving.rows import Batch, joined

Act = Callable[[Batch], Batch]


@dataclass(frozen=True)
class Batching:
    """When a batch is complete."""

    max_batch_size: int
    """Observations; a request of more is computed alone."""
    wait_timeout_s: float
    """How long the first of a batch waits for others."""


class Waiting(NamedTuple):
    """One request's observations, and where its actions go."""

    observations: Batch
    actions: asyncio.Future[Batch]


class Batcher:
    """Collects the observations of requests for one policy. Of one event loop.

    The policy runs in a thread, so that the loop reads the next requests meanwhile; ONNX Runtime lets go of
    the GIL. One batch runs at a time: those that arrive meanwhile make the next.
    """

    def __init__(self, act: Act, batching: Batching) -> None:
        self._act = act
        self._batching = batching
        self._waiting: list[Waiting] = []
        self._full = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def act(self, observations: Batch) -> Batch:
        """Return the actions for one request's observations, `[batch, ...]`. Raises what the policy raises."""
        waiting = Waiting(observations, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._count() >= self._batching.max_batch_size:
            self._full.set()
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await waiting.actions

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._fill()
                batch = self._take()
                if batch:
                    await self._answer(batch)
        finally:
            self._running = None

    async def _fill(self) -> None:
        """Wait until a batch is full, or its time is over."""
        self._full.clear()
        if self._count() >= self._batching.max_batch_size or not self._batching.wait_timeout_s:
            return
        try:
            async with asyncio.timeout(self._batching.wait_timeout_s):
                await self._full.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[Waiting]:
        """Return the next batch, less the requests whose clients hung up."""
        self._waiting = [each for each in self._waiting if not each.actions.done()]
        total, taken = 0, 0
        for each in self._waiting:
            total += len(each.observations)
            if taken and total > self._batching.max_batch_size:
                break
            taken += 1
        batch, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return batch

    async def _answer(self, batch: list[Waiting]) -> None:
        try:
            actions = await asyncio.to_thread(self._act, joined([each.observations for each in batch]))
        except Exception as error:  # noqa: BLE001 - it goes to those who wait
            await self._answer_singly(batch, error)
            return
        start = 0
        for each in batch:
            end = start + len(each.observations)
            _resolve(each, actions[start:end])
            start = end

    async def _answer_singly(self, batch: list[Waiting], error: Exception) -> None:
        """Find out whose fault it was: the others get their actions."""
        if len(batch) == 1:
            _fail(batch[0], error)
            return
        for each in batch:
            await self._answer([each])

    def _count(self) -> int:
        return sum(len(each.observations) for each in self._waiting)


def _resolve(waiting: Waiting, actions: Batch) -> None:
    if not waiting.actions.done():
        waiting.actions.set_result(actions)


def _fail(waiting: Waiting, error: Exception) -> None:
    if not waiting.actions.done():
        waiting.actions.set_exception(error)
