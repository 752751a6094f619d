import asyncio
import json
import threading
import time
from typing import Any

import numpy as np
import pytest

from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.policy.errors import InferenceTimeout, PolicyFailed
from serving.replica import batching
from serving.replica.batching import QUICK_S, Batcher, Batching
from serving.replica.errors import AnswerTooLate, ComputationTooLong
from serving.replica.metrics import Metrics
from tests.serving.asking import answer, answers_together, ask, served
from tests.serving.policies import COUNTING_BUNDLE, EXPLORING_BUNDLE, ROBOT_BUNDLE, ROBOT_OBSERVATION, STEERING_BUNDLE


class Doubling:
    """A policy whose action is twice the observation. It fails for a batch that contains 7, and can be paused."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.entered, self.resume = threading.Event(), threading.Event()
        self.resume.set()

    def __call__(self, observations: Any) -> Any:
        self.entered.set()
        assert self.resume.wait(10)
        self.batches.append(len(observations))
        if (observations == 7).any():
            raise PolicyFailed("seven")
        return observations * 2


def batch(*values: float) -> Any:
    return np.array(values, np.float32)[:, None]


def outcomes(policy: Doubling, batching: Batching, *requests: Any) -> list[Any]:
    async def run() -> list[Any]:
        batcher = Batcher(policy, batching, Metrics())
        return await asyncio.gather(*(batcher.act(request) for request in requests), return_exceptions=True)

    return asyncio.run(run())


def test_concurrent_requests_are_computed_together_and_each_gets_its_own_actions() -> None:
    policy = Doubling()
    found = outcomes(policy, Batching(8, 0.01), batch(1), batch(2, 3), batch(4))
    assert [each.ravel().tolist() for each in found] == [[2], [4, 6], [8]]
    assert policy.batches == [4]


def test_a_batch_exceeds_its_limit_only_if_a_single_request_does() -> None:
    policy = Doubling()
    found = outcomes(policy, Batching(2, 0.01), batch(1), batch(2, 3, 4), batch(5), batch(6))
    assert [each.ravel().tolist() for each in found] == [[2], [4, 6, 8], [10], [12]]
    assert policy.batches == [1, 3, 2]


def test_a_batch_that_is_full_at_once_does_not_wait() -> None:
    outcomes(Doubling(), Batching(2, 1000), batch(1), batch(2))


def test_a_request_in_a_later_turn_of_the_loop_completes_a_waiting_batch() -> None:
    policy = Doubling()

    async def run() -> None:
        batcher = Batcher(policy, Batching(2, 1000), Metrics())
        first = asyncio.create_task(batcher.act(batch(1)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not first.done()
        async with asyncio.timeout(10):
            await batcher.act(batch(2))
            await first

    asyncio.run(run())
    assert policy.batches == [2]


def test_after_a_full_batch_the_next_one_waits_again() -> None:
    policy = Doubling()

    async def run() -> None:
        batcher = Batcher(policy, Batching(2, 1000), Metrics())
        await asyncio.gather(*(batcher.act(batch(value)) for value in (1, 2)))
        third = asyncio.create_task(batcher.act(batch(3)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert policy.batches == [2]
        await asyncio.gather(third, batcher.act(batch(4)))

    asyncio.run(run())
    assert policy.batches == [2, 2]


def test_a_failing_request_does_not_affect_the_others_in_its_batch() -> None:
    found = outcomes(Doubling(), Batching(8, 0.01), batch(1), batch(7), batch(3))
    assert [each.ravel().tolist() for each in (found[0], found[2])] == [[2], [6]]
    assert isinstance(found[1], PolicyFailed)


def test_single_requests_are_computed_inline_and_concurrent_ones_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "QUICK_S", 60.0)  # however busy this machine is
    policy = Doubling()

    async def run() -> list[bool]:
        batcher = Batcher(policy, Batching(8, 0.0), Metrics())
        await batcher.act(batch(1))  # after this, the duration of the policy is known
        await asyncio.sleep(0)
        alone = asyncio.create_task(batcher.act(batch(2)))
        await asyncio.sleep(0)
        at_once = alone.done()
        for _ in range(2):
            await asyncio.gather(*(batcher.act(batch(value)) for value in (3, 4, 5)))
            await asyncio.sleep(0)
        for _ in range(2):
            await batcher.act(batch(6))
            await asyncio.sleep(0)
        last = asyncio.create_task(batcher.act(batch(7 + 1)))
        await asyncio.sleep(0)
        return [at_once, last.done()]

    assert asyncio.run(run()) == [True, True]
    assert policy.batches == [1, 1, 1, 2, 3, 1, 1, 1]


def test_a_batcher_that_gathers_computes_nothing_inline() -> None:
    policy = Doubling()

    async def run() -> None:
        batcher = Batcher(policy, Batching(8, 0.0), Metrics(), gathers=True)
        for _ in range(2):
            await asyncio.gather(*(batcher.act(batch(value)) for value in (1, 2)))

    asyncio.run(run())
    assert policy.batches == [2, 2]


def test_a_slow_policy_does_not_block_the_event_loop() -> None:
    policy = Doubling()
    policy.resume.clear()

    async def run() -> None:
        batcher = Batcher(policy, Batching(8, 0.0), Metrics())
        request = asyncio.create_task(batcher.act(batch(1)))
        await asyncio.to_thread(policy.entered.wait, 10)
        await asyncio.sleep(5 * QUICK_S)  # the policy's duration, in which this event loop runs
        policy.resume.set()
        await request
        assert not batcher.quick

    asyncio.run(run())


def test_a_cancelled_request_does_not_affect_the_others_in_its_batch() -> None:
    async def run() -> list[Any]:
        batcher = Batcher(Doubling(), Batching(8, 0.05), Metrics())
        requests = [asyncio.create_task(batcher.act(batch(value))) for value in (1, 2, 3)]
        await asyncio.sleep(0)
        requests[1].cancel()
        return await asyncio.gather(*requests, return_exceptions=True)

    first, gone, third = asyncio.run(run())
    assert (first.item(), third.item()) == (2, 6)
    assert isinstance(gone, asyncio.CancelledError)


def test_requests_that_arrive_during_a_batch_form_the_next() -> None:
    policy = Doubling()
    policy.resume.clear()

    async def run() -> None:
        batcher = Batcher(policy, Batching(8, 0.0), Metrics())
        first = asyncio.create_task(batcher.act(batch(1)))
        await asyncio.to_thread(policy.entered.wait, 10)
        others = [asyncio.create_task(batcher.act(batch(value))) for value in (2, 3)]
        await asyncio.sleep(0)
        policy.resume.set()
        await asyncio.gather(first, *others)

    asyncio.run(run())
    assert policy.batches == [1, 2]


@pytest.mark.parametrize(
    "body", [b'{"observation": [0.3]}', b'{"observations": [[0.3], [-2]]}', b'{"observations": []}']
)
def test_responses_are_the_same_with_and_without_batching(body: bytes) -> None:
    together = PolicyApp(served(STEERING_BUNDLE), Arguments(max_batch_size=8, batch_wait_timeout_s=0.001))
    singly = PolicyApp(served(STEERING_BUNDLE), Arguments(max_batch_size=1))
    assert ask(together, body=body) == ask(singly, body=body)


@pytest.mark.parametrize("body", [b'{"observation": [7]}', b'{"observation": [1, 2]}', b"hello"])
def test_errors_are_the_same_with_and_without_batching(body: bytes) -> None:
    together = PolicyApp(served(STEERING_BUNDLE), Arguments(max_batch_size=8, batch_wait_timeout_s=0.001))
    singly = PolicyApp(served(STEERING_BUNDLE), Arguments(max_batch_size=1))
    assert ask(together, body=body) == ask(singly, body=body)


ZEROS = [0, 0, 0, 0]
STATE = json.loads(answer(served(COUNTING_BUNDLE), b'{"observation": [2]}'))["state"]
MIXED: dict[str, tuple[Bundle, list[dict[str, Any]]]] = {
    "options": (
        EXPLORING_BUNDLE,
        [
            {"observation": [0, 0, 1, 0]},
            {"observation": ZEROS, "explore": True, "seed": 1},
            {"observations": [ZEROS, [0, 0, -1, 0]], "details": True},
            {"observations": []},
            {"observation": ZEROS, "explore": True, "seed": 2, "details": True},
        ],
    ),
    "states": (
        COUNTING_BUNDLE,
        [
            {"observation": [-1], "state": STATE},
            {"observation": [-1]},
            {"observations": [[1], [-1]], "states": [None, STATE]},
            {"observation": [-1], "explore": True, "seed": 3, "state": STATE},
        ],
    ),
    "nested": (ROBOT_BUNDLE, [{"observation": ROBOT_OBSERVATION}, {"observations": [ROBOT_OBSERVATION] * 2}]),
}


@pytest.mark.parametrize("kind", MIXED)
def test_requests_of_different_kinds_share_a_batch_and_get_their_usual_responses(kind: str) -> None:
    bundle, requests = MIXED[kind]
    bodies = [json.dumps(request).encode() for request in requests]
    app = PolicyApp(served(bundle), Arguments(max_batch_size=64, batch_wait_timeout_s=0.05))
    found = [json.loads(body) for _, _, body in answers_together(app, *bodies)]
    expected = [json.loads(answer(served(bundle), body)) for body in bodies]
    assert found == expected
    assert app.metrics.batch_size.cumulative()[-1][1] == 1


class Slow:
    """A policy that takes a fixed time per call and a time per observation, and records its calls."""

    def __init__(self, call_s: float, observation_s: float) -> None:
        self.calls: list[int] = []
        self.threads: list[threading.Thread] = []
        self._call_s, self._observation_s = call_s, observation_s

    def __call__(self, observations: Any) -> Any:
        self.calls.append(len(observations))
        self.threads.append(threading.current_thread())
        time.sleep(self._call_s + self._observation_s * len(observations))
        return observations * 2


@pytest.fixture
def short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the time in which a request must be answered."""
    monkeypatch.setattr(batching, "ANSWER_WITHIN_S", 0.5)
    monkeypatch.setattr(batching, "PART_S", 0.05)
    monkeypatch.setattr(batching, "EXPIRE_EVERY_S", 0.01)


@pytest.mark.usefixtures("short_time")
def test_requests_that_wait_too_long_get_an_error_and_are_not_computed() -> None:
    policy = Doubling()
    policy.resume.clear()

    async def run() -> list[Any]:
        batcher = Batcher(policy, Batching(1, 0.0), Metrics())
        found = await asyncio.gather(*(batcher.act(batch(value)) for value in (1, 2, 3)), return_exceptions=True)
        policy.resume.set()
        return [*found, await batcher.act(batch(4))]

    *late, answered = asyncio.run(run())
    assert [type(error) for error in late] == [AnswerTooLate] * 3
    assert (answered.ravel().tolist(), policy.batches) == ([8], [1, 1]), "the first request and the last one"


@pytest.mark.usefixtures("short_time")
def test_a_request_with_more_observations_than_can_be_computed_in_time_is_not_computed_to_its_end() -> None:
    policy = Slow(0, 0.005)
    (found,) = outcomes(policy, Batching(4, 0.0), np.ones((1000, 1), np.float32))  # type: ignore[arg-type]
    assert isinstance(found, ComputationTooLong)
    assert 0 < found.most < sum(policy.calls) < 1000


@pytest.mark.usefixtures("short_time")
def test_a_large_request_that_is_late_because_of_others_may_be_sent_again() -> None:
    large = np.ones((50, 1), np.float32)
    found = outcomes(Slow(0, 0.0027), Batching(4, 0.0), *[large] * 5)  # type: ignore[arg-type]
    assert {type(each) for each in found} == {np.ndarray, AnswerTooLate}


def test_a_large_request_is_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "PART_S", 0.04)
    policy, observations = Slow(0, 0.002), np.arange(50, dtype=np.float32)[:, None]
    (found,) = outcomes(policy, Batching(16, 0.0), observations)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, observations * 2)
    assert (len(policy.calls) > 1, sum(policy.calls)) == (True, 50)


def test_batches_shrink_to_what_is_computed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "PART_S", 0.04)
    policy = Slow(0, 0.03)
    found = outcomes(policy, Batching(3, 0.0), *(batch(value) for value in range(5)))  # type: ignore[arg-type]
    assert [each.ravel().tolist() for each in found] == [[0], [2], [4], [6], [8]]
    assert policy.calls == [3, 1, 1]


def test_batches_grow_if_most_of_the_time_does_not_depend_on_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "PART_S", 0.2)
    policy = Slow(0.15, 0)

    async def run() -> None:
        batcher = Batcher(policy, Batching(8, 0.0), Metrics())  # type: ignore[arg-type]
        await batcher.act(batch(1))
        await asyncio.gather(*(batcher.act(batch(value)) for value in range(12)))

    asyncio.run(run())
    assert policy.calls == [1, 2, 4, 6]


def test_a_quick_policy_computes_large_requests_in_a_thread_until_they_are_known_to_be_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "QUICK_S", 60.0)
    policy, observations = Slow(0, 0), np.ones((100, 1), np.float32)

    async def run() -> None:
        batcher = Batcher(policy, Batching(16, 0.0), Metrics(), quick=True)  # type: ignore[arg-type]
        for _ in range(3):
            await batcher.act(observations)

    asyncio.run(run())
    assert policy.calls == [16, 84, 100, 100]
    here = threading.current_thread()
    assert [thread is here for thread in policy.threads] == [False, False, False, True]


@pytest.mark.usefixtures("short_time")
def test_the_errors_of_late_answers_say_what_to_do() -> None:
    policy = served()
    policy.policy.act = Slow(0, 0.005)  # type: ignore[method-assign, assignment]
    app = PolicyApp(policy)
    many = ask(app, body=json.dumps({"observations": [[0.0] * 4] * 1000}).encode())
    assert (many.status, many.json()["error"]["code"]) == (413, "computation_too_long")
    assert "; send at most " in many.json()["error"]["message"]
    policy.policy.act = Slow(0.7, 0)  # type: ignore[method-assign, assignment]
    late = ask(PolicyApp(policy), body=b'{"observation": [0, 0, 0, 0]}')
    assert (late.status, late.headers["retry-after"]) == (503, "1")
    assert late.json()["error"] == {
        "code": "answer_too_late",
        "message": "the policy did not answer within 0.5 s; try again in a second",
    }


class Hanging:
    """A policy whose calls are stopped as a guard does it, if they hold 7; the first one can be paused."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.entered, self.resume = threading.Event(), threading.Event()

    def __call__(self, observations: Any) -> Any:
        self.batches.append(len(observations))
        self.entered.set()
        assert self.resume.wait(10)
        if (observations == 7).any():
            raise InferenceTimeout(1.0)
        return observations


@pytest.mark.parametrize(("has_fallback", "batches"), [(True, [3]), (False, [3, 1, 1, 1])])
def test_after_a_timeout_a_batch_is_computed_singly_only_if_nothing_else_can_answer_it(
    *, has_fallback: bool, batches: list[int]
) -> None:
    policy = Hanging()
    policy.resume.set()

    async def run() -> list[Any]:
        batcher = Batcher(policy, Batching(8, 0.01), Metrics(), has_fallback=lambda: has_fallback)
        requests = (batcher.act(batch(number)) for number in (1, 7, 2))
        return await asyncio.gather(*requests, return_exceptions=True)

    found = asyncio.run(run())
    assert policy.batches == batches
    assert [isinstance(each, InferenceTimeout) for each in found] == [has_fallback, True, has_fallback]


def test_requests_that_wait_for_a_withdrawn_policy_get_its_fault_at_once() -> None:
    policy, fault = Hanging(), InferenceTimeout(1.0)

    async def run() -> list[Any]:
        batcher = Batcher(policy, Batching(8, 0.0), Metrics())
        first = asyncio.create_task(batcher.act(batch(1)))
        await asyncio.to_thread(policy.entered.wait, 10)
        waiting = asyncio.create_task(batcher.act(batch(2)))
        await asyncio.sleep(0)
        batcher.withdraw(fault)
        found = await asyncio.gather(waiting, batcher.act(batch(3)), return_exceptions=True)
        policy.resume.set()
        return [*found, await first]

    *faults, answer = asyncio.run(run())
    assert (faults, answer.tolist(), policy.batches) == ([fault, fault], [[1]], [1])


@pytest.mark.parametrize(("observation_s", "affordable"), [(0.0, 16), (0.001, 16), (0.1, 2), (1.0, 1)])
def test_the_first_batch_of_a_slow_policy_is_planned_with_what_its_warm_up_took(
    observation_s: float, affordable: int
) -> None:
    batcher = Batcher(Doubling(), Batching(16, 0.0), Metrics(), observation_s=observation_s)
    assert batcher._affordable == batcher._inline == affordable


def test_calls_are_planned_to_take_a_quarter_of_the_time_limit() -> None:
    assert [Batching(16, 0.0, limit).part_s for limit in (1.0, 1.4, 0.2)] == [0.25, 0.25, 0.05]


def test_the_last_observations_are_kept_unless_they_are_many() -> None:
    batcher = Batcher(Doubling(), Batching(2, 0.0), Metrics())

    async def last_of(*values: float) -> Any:
        await batcher.act(batch(*values))
        return batcher.last

    assert asyncio.run(last_of(1, 2)).tolist() == [[1], [2]]
    assert asyncio.run(last_of(1, 2, 3)) is None


@pytest.mark.parametrize(("timeout_s", "is_stuck"), [(0.01, True), (60.0, False)])
def test_a_late_request_tells_whether_a_call_is_stuck_and_its_timeout_is_reported(
    monkeypatch: pytest.MonkeyPatch, timeout_s: float, *, is_stuck: bool
) -> None:
    monkeypatch.setattr(batching, "ANSWER_WITHIN_S", 0.2)
    policy, reported = Hanging(), list[InferenceTimeout]()

    async def run() -> AnswerTooLate:
        batcher = Batcher(policy, Batching(8, 0.0, timeout_s), Metrics(), on_timeout=reported.append)
        with pytest.raises(AnswerTooLate) as caught:
            await batcher.act(batch(7))
        assert not reported
        policy.resume.set()
        assert batcher._running is not None
        await batcher._running
        return caught.value

    assert asyncio.run(run()).is_stuck is is_stuck
    assert len(reported) == 1
