"""Dynamic batching: observations of several requests are computed together where that is cheaper."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

from serving.errors import HttpError
from serving.policy.errors import InferenceTimeout, PolicyFault
from serving.policy.tensors import Batch, joined
from serving.replica.errors import AnswerTooLate, ComputationTooLong
from serving.replica.limits import ANSWER_WITHIN_S
from serving.replica.metrics import Metrics

Compute = Callable[[Batch], Batch]
"""A policy: observations `[batch, *shape]` -> actions `[batch, *shape]`."""

QUICK_S = 1e-3
"""A policy that takes longer runs in a thread, so that the event loop can read the next requests meanwhile."""

PART_S = 0.25
"""About the longest time of one call of the policy. Batches that take longer are computed in parts."""
QUICK_PARTS = 250
"""How much more a call may compute in PART_S than in QUICK_S."""
PARTS_IN_TIMEOUT = 4
"""How many such calls the time limit of one call has room for at least."""

EXPIRE_EVERY_S = 0.1
"""Seconds between two checks whether requests have waited too long."""


@dataclass(frozen=True)
class Batching:
    """When a batch is complete."""

    max_batch_size: int
    """The maximum number of observations in a batch. A request with more is computed alone."""
    wait_timeout_s: float
    """How long the first request of a batch waits for others."""
    inference_timeout_s: float = PARTS_IN_TIMEOUT * PART_S
    """The time limit of one call of the policy, which a guard enforces."""

    @property
    def part_s(self) -> float:
        """About the longest time that one call of the policy is planned to take."""
        return min(PART_S, self.inference_timeout_s / PARTS_IN_TIMEOUT)


class Pending(NamedTuple):
    """The observations of one request, and the future that receives their actions."""

    observations: Batch
    actions: asyncio.Future[Batch]
    deadline: float
    """The event loop's time at which it gets AnswerTooLate."""


class Batcher:
    """Batches the requests for one policy. It belongs to one event loop.

    A request that arrives alone is computed at once. When two arrive in one turn of the event loop, the requests after
    them wait for the end of their turn and are computed together, until one arrives alone again. A single client
    therefore loses no time, and under concurrent load the fixed cost of calling ONNX Runtime is shared.

    One batch runs at a time, and the requests that arrive meanwhile form the next. ONNX Runtime releases the GIL.

    A request that is not answered within ANSWER_WITHIN_S gets an error. If it still waits, it is not computed; if it
    has more observations than can be computed in that time, the computation ends after its first part.

    Args:
        act: The policy.
        batching: When a batch is complete.
        metrics: Receives the size and the duration of each batch.
        gathers: Whether requests that arrive alone wait for the end of their turn as well. Serve autoscales on
            concurrent requests, and requests that are answered inline never overlap, so it would see no load.
        quick: The initial value of `quick`.
        observation_s: About the time of one observation, if it is known; else 0.
        has_fallback: Returns whether another policy answers a request when this one fails.
        inline: Whether a quick policy may be computed in the event loop; else always in a thread, so that a policy that
            hangs delays no request but its own.
        on_timeout: Receives a timeout that no request waits for any more.
    """

    def __init__(
        self,
        act: Compute,
        batching: Batching,
        metrics: Metrics,
        *,
        gathers: bool = False,
        quick: bool = False,
        observation_s: float = 0.0,
        has_fallback: Callable[[], bool] = lambda: False,
        inline: bool = True,
        on_timeout: Callable[[InferenceTimeout], None] = lambda _: None,
    ) -> None:
        self._act = act
        self._batching = batching
        self._metrics = metrics
        self._gathers = gathers or not inline
        self._may_inline = inline
        self._pending: list[Pending] = []
        self._pending_observations = 0
        self._full = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._concurrent = self._gathers
        self._turn_begun = False
        self._last_was_quick = False
        self._computing: list[Pending] = []
        self._late: HttpError = AnswerTooLate(ANSWER_WITHIN_S)
        """What the requests that are being computed get if they are late."""
        self._expiry: asyncio.TimerHandle | None = None
        self._has_fallback, self._on_timeout = has_fallback, on_timeout
        self._call_began = 0.0
        """The event loop's time at which the last call in a thread began."""
        self._withdrawn: PolicyFault | None = None
        fitting = int(batching.part_s / observation_s) if observation_s else batching.max_batch_size
        self._affordable = max(1, min(batching.max_batch_size, fitting))
        """The number of observations of the next call of the policy, which then takes about `part_s` at most."""
        self._inline = self._affordable
        """The number of observations up to which a quick policy is assumed to be quick."""
        self._most_quick = 0
        """The most observations that were quick since the last call that was not."""
        self.last: Batch | None = None
        """The observations of the last call that succeeded, None if it had many."""
        self.quick = quick
        """Whether one of the last two batches took at most QUICK_S. A single slow one may be the machine's fault."""

    async def act(self, observations: Batch) -> Batch:
        """Return the actions for one request's observations, `[batch, ...]`.

        Raises what the policy raises, AnswerTooLate and ComputationTooLong, and the fault of a withdrawn policy.
        """
        if self._withdrawn is not None:
            raise self._withdrawn.with_traceback(None)
        loop = asyncio.get_running_loop()
        if self.quick and len(observations) <= self._inline and self._is_alone(loop):
            return self._compute(observations)
        pending = Pending(observations, loop.create_future(), loop.time() + ANSWER_WITHIN_S)
        self._pending.append(pending)
        self._pending_observations += len(observations)
        if self._is_full():
            self._full.set()
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await pending.actions

    def withdraw(self, fault: PolicyFault) -> None:
        """Compute nothing any more: the requests that wait, and later ones, get the fault of the policy."""
        self._withdrawn = fault
        for each in self._pending:
            if not each.actions.done():
                each.actions.set_exception(fault)

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
        quick, count = duration <= QUICK_S, len(observations)
        self.quick, self._last_was_quick = quick or self._last_was_quick, quick
        if not quick:
            self._plan(count, duration)
        elif count > self._most_quick:
            self._most_quick = count
            many = int(count * QUICK_PARTS * self._batching.part_s / PART_S)
            self._inline, self._affordable = max(self._inline, count), max(self._affordable, many)
        self.last = observations if count <= self._batching.max_batch_size else None
        self._metrics.inference_ms.add(duration * 1e3)
        self._metrics.batch_size.add(count)
        return actions

    def _plan(self, count: int, duration: float) -> None:
        """Decide how many observations the next call computes, after a call that was not quick."""
        self._most_quick = 0
        self._inline = max(self._batching.max_batch_size, min(self._inline, count - 1))
        part_s = self._batching.part_s
        in_proportion = int(count * part_s / duration)
        # Much of the time may not depend on their number.
        self._affordable = max(1, in_proportion if duration > part_s else max(in_proportion, 2 * count))

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
            if taken and total > min(self._batching.max_batch_size, self._affordable):
                break
            taken += 1
        batch, self._pending = self._pending[:taken], self._pending[taken:]
        self._pending_observations = sum(len(each.observations) for each in self._pending)
        return batch

    async def _answer(self, batch: list[Pending]) -> None:
        try:
            observations = joined([each.observations for each in batch])
            quick = self._may_inline and self.quick and not self._batching.wait_timeout_s
            quick = quick and len(observations) <= self._inline
            actions = self._compute(observations) if quick else await self._compute_in_thread(batch, observations)
        except Exception as error:  # noqa: BLE001 - the futures carry it to the requests
            await self._answer_singly(batch, error)
            return
        start = 0
        for each in batch:
            end = start + len(each.observations)
            if not each.actions.done():
                each.actions.set_result(actions[start:end])
            start = end

    async def _compute_in_thread(self, batch: list[Pending], observations: Batch) -> Batch:
        """Return the actions, computed in parts. Raises ComputationTooLong and AnswerTooLate."""
        loop, count, done = asyncio.get_running_loop(), len(observations), 0
        begun = loop.time()
        parts: list[Batch] = []
        self._computing, self._late = batch, AnswerTooLate(ANSWER_WITHIN_S)
        self._expiry = loop.call_later(EXPIRE_EVERY_S, self._expire, loop)
        try:
            while done < count:
                part, start = observations[done : done + self._affordable], loop.time()
                self._call_began = start
                parts.append(await asyncio.to_thread(self._compute, part))
                done += len(part)
                # Only a single request can have more observations than one call computes.
                if done < count and (loop.time() - begun) * count > ANSWER_WITHIN_S * done:
                    self._late = ComputationTooLong(count, ANSWER_WITHIN_S, max(1, done // 2))
                if done < count and 2 * loop.time() - start > batch[0].deadline:
                    raise self._late
        finally:
            self._expiry.cancel()
            self._computing = []
        return joined(parts)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer the requests that have waited too long, while a thread computes."""
        now = loop.time()
        is_stuck = now - self._call_began >= self._batching.inference_timeout_s
        late = AnswerTooLate(ANSWER_WITHIN_S, is_stuck=is_stuck)
        for requests, error in ((self._computing, late if is_stuck else self._late), (self._pending, late)):
            for each in requests:
                if each.deadline <= now and not each.actions.done():
                    each.actions.set_exception(error)
        self._pending = [each for each in self._pending if not each.actions.done()]
        self._expiry = loop.call_later(EXPIRE_EVERY_S, self._expire, loop)

    async def _answer_singly(self, batch: list[Pending], error: Exception) -> None:
        """Compute each request of a failed batch alone, so that only the request at fault fails.

        After a timeout, there is no time for that, if another policy can answer them all.
        """
        if isinstance(error, InferenceTimeout) and all(each.actions.done() for each in batch):
            self._on_timeout(error)
        elif isinstance(error, InferenceTimeout) and self._has_fallback():
            for each in batch:
                if not each.actions.done():
                    each.actions.set_exception(error)
        elif len(batch) > 1:
            for each in batch:
                await self._answer([each])
        elif not batch[0].actions.done():
            batch[0].actions.set_exception(error)

    def _is_full(self) -> bool:
        return self._pending_observations >= self._batching.max_batch_size
