"""Dynamic batching: observations of several requests are computed together where that is cheaper."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

from serving.policy.tensors import Batch, joined
from serving.replica.metrics import Metrics

Compute = Callable[[Batch], Batch]
"""A policy: observations `[batch, *shape]` -> actions `[batch, *shape]`."""

QUICK_S = 1e-3
"""A policy that takes longer runs in a thread, so that the event loop can read the next requests meanwhile."""


@dataclass(frozen=True)
class Batching:
    """When a batch is complete."""

    max_batch_size: int
    """The maximum number of observations in a batch. A request with more is computed alone."""
    wait_timeout_s: float
    """How long the first request of a batch waits for others."""


class Pending(NamedTuple):
    """The observations of one request, and the future that receives their actions."""

    observations: Batch
    actions: asyncio.Future[Batch]


class Batcher:
    """Batches the requests for one policy. It belongs to one event loop.

    A request that arrives alone is computed at once. When two arrive in one turn of the event loop, the requests after
    them wait for the end of their turn and are computed together, until one arrives alone again. A single client
    therefore loses no time, and under concurrent load the fixed cost of calling ONNX Runtime is shared.

    One batch runs at a time, and the requests that arrive meanwhile form the next. ONNX Runtime releases the GIL.

    Args:
        act: The policy.
        batching: When a batch is complete.
        metrics: Receives the size and the duration of each batch.
        gathers: Whether requests that arrive alone wait for the end of their turn as well. Serve autoscales on
            concurrent requests, and requests that are answered inline never overlap, so it would see no load.
        quick: The initial value of `quick`.
    """

    def __init__(
        self, act: Compute, batching: Batching, metrics: Metrics, *, gathers: bool = False, quick: bool = False
    ) -> None:
        self._act = act
        self._batching = batching
        self._metrics = metrics
        self._gathers = gathers
        self._pending: list[Pending] = []
        self._pending_observations = 0
        self._full = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._concurrent = gathers
        self._turn_begun = False
        self._last_was_quick = False
        self.quick = quick
        """Whether one of the last two batches took at most QUICK_S. A single slow one may be the machine's fault."""

    async def act(self, observations: Batch) -> Batch:
        """Return the actions for one request's observations, `[batch, ...]`. Raises what the policy raises."""
        loop = asyncio.get_running_loop()
        if self.quick and self._is_alone(loop):
            return self._compute(observations)
        pending = Pending(observations, loop.create_future())
        self._pending.append(pending)
        self._pending_observations += len(observations)
        if self._is_full():
            self._full.set()
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await pending.actions

    def _is_alone(self, loop: asyncio.AbstractEventLoop) -> bool:
        if self._concurrent or self._running is not None or self._batching.wait_timeout_s:
            return False
        if self._turn_begun:
            self._concurrent = True
            return False
        self._turn_begun = True
        loop.call_soon(self._end_turn)
        return True

    def _end_turn(self) -> None:
        self._turn_begun = False

    async def _run(self) -> None:
        try:
            while self._pending:
                await self._wait_until_full()
                batch = self._take()
                if batch:
                    await self._answer(batch)
                    self._concurrent = self._gathers or len(batch) > 1
                    await asyncio.sleep(0)  # the responses are sent before the next batch runs
        finally:
            self._running = None

    def _compute(self, observations: Batch) -> Batch:
        start = perf_counter()
        actions = self._act(observations)
        duration = perf_counter() - start
        quick = duration <= QUICK_S
        self.quick, self._last_was_quick = quick or self._last_was_quick, quick
        self._metrics.inference_ms.add(duration * 1e3)
        self._metrics.batch_size.add(len(observations))
        return actions

    async def _wait_until_full(self) -> None:
        """Return when a batch is full or its waiting time is over."""
        self._full.clear()
        if not self._batching.wait_timeout_s or self._is_full():
            return
        try:
            async with asyncio.timeout(self._batching.wait_timeout_s):
                await self._full.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[Pending]:
        """Return the next batch, without the requests whose clients disconnected."""
        self._pending = [each for each in self._pending if not each.actions.done()]
        total, taken = 0, 0
        for each in self._pending:
            total += len(each.observations)
            if taken and total > self._batching.max_batch_size:
                break
            taken += 1
        batch, self._pending = self._pending[:taken], self._pending[taken:]
        self._pending_observations = sum(len(each.observations) for each in self._pending)
        return batch

    async def _answer(self, batch: list[Pending]) -> None:
        try:
            observations = joined([each.observations for each in batch])
            quick = self.quick and not self._batching.wait_timeout_s
            actions = self._compute(observations) if quick else await asyncio.to_thread(self._compute, observations)
        except Exception as error:  # noqa: BLE001 - the futures carry it to the requests
            await self._answer_singly(batch, error)
            return
        start = 0
        for each in batch:
            end = start + len(each.observations)
            if not each.actions.done():
                each.actions.set_result(actions[start:end])
            start = end

    async def _answer_singly(self, batch: list[Pending], error: Exception) -> None:
        """Compute each request of a failed batch alone, so that only the request at fault fails."""
        if len(batch) > 1:
            for each in batch:
                await self._answer([each])
        elif not batch[0].actions.done():
            batch[0].actions.set_exception(error)

    def _is_full(self) -> bool:
        return self._pending_observations >= self._batching.max_batch_size
