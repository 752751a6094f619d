"""Dynamic batching: observations of several requests computed at once, where that is cheaper than one by one."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from serving.policy.rows import Batch, joined

Act = Callable[[Batch], Batch]

QUICK_S = 1e-3
"""A policy that takes longer runs in a thread, so that the event loop reads the next requests meanwhile."""


@dataclass(frozen=True)
class Batching:
    """When a batch is complete."""

    max_batch_size: int = 16
    """Observations; a request of more is computed alone."""
    wait_timeout_s: float = 0.0
    """How long the first of a batch waits for others."""


class Waiting(NamedTuple):
    """One request's observations, and where its actions go."""

    observations: Batch
    actions: asyncio.Future[Batch]


class Batcher:
    """Collects the observations of requests for one policy. Of one event loop.

    A request that comes alone is computed at once. Where two came in one turn of the event loop, those that follow
    wait for the end of their turn, and are computed together, until again one comes alone: a lone client
    loses nothing, and a crowd pays for ONNX Runtime's way in and out once.

    One batch runs at a time: those that arrive meanwhile make the next. ONNX Runtime lets go of the GIL.

    Args:
        act: The policy: `[batch, *shape]` -> actions.
        batching: When a batch is complete.
        gathers: Let requests that come alone wait for the end of their turn as well. Serve scales by the requests that
            are under way together, and sees none where each is answered before the next is looked at.
    """

    def __init__(self, act: Act, batching: Batching, *, gathers: bool = False) -> None:
        self._act = act
        self._batching = batching
        self._gathers = gathers
        self._waiting: list[Waiting] = []
        self._full = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._crowded = gathers
        self._turn_begun = False
        self._last_was_quick = False
        self.quick = False
        """Whether one of the last two batches took at most QUICK_S: a slow one alone may be the machine's fault."""

    async def act(self, observations: Batch) -> Batch:
        """Return the actions for one request's observations, `[batch, ...]`. Raises what the policy raises."""
        loop = asyncio.get_running_loop()
        if self.quick and self._comes_alone(loop):
            return self._compute(observations)
        waiting = Waiting(observations, loop.create_future())
        self._waiting.append(waiting)
        if self._is_full():
            self._full.set()
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await waiting.actions

    def _comes_alone(self, loop: asyncio.AbstractEventLoop) -> bool:
        if self._crowded or self._running is not None or self._batching.wait_timeout_s:
            return False
        if self._turn_begun:
            self._crowded = True
            return False
        self._turn_begun = True
        loop.call_soon(self._end_turn)
        return True

    def _end_turn(self) -> None:
        self._turn_begun = False

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._fill()
                batch = self._take()
                if batch:
                    await self._answer(batch)
                    self._crowded = self._gathers or len(batch) > 1
                    await asyncio.sleep(0)  # the answers go out before the next batch
        finally:
            self._running = None

    def _compute(self, observations: Batch) -> Batch:
        begun = time.perf_counter()
        actions = self._act(observations)
        quick = time.perf_counter() - begun <= QUICK_S
        self.quick, self._last_was_quick = quick or self._last_was_quick, quick
        return actions

    async def _fill(self) -> None:
        """Wait until a batch is full, or its time is over."""
        self._full.clear()
        if not self._batching.wait_timeout_s or self._is_full():
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
            observations = joined([each.observations for each in batch])
            quick = self.quick and not self._batching.wait_timeout_s
            actions = self._compute(observations) if quick else await asyncio.to_thread(self._compute, observations)
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

    def _is_full(self) -> bool:
        return sum(len(each.observations) for each in self._waiting) >= self._batching.max_batch_size


def _resolve(waiting: Waiting, actions: Batch) -> None:
    if not waiting.actions.done():
        waiting.actions.set_result(actions)


def _fail(waiting: Waiting, error: Exception) -> None:
    if not waiting.actions.done():
        waiting.actions.set_exception(error)
