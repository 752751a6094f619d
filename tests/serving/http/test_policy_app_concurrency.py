"""Requests at the same time: a policy that is replaced meanwhile, batches, and the limit of ongoing requests."""

import asyncio
import json
import threading
from typing import Any

import pytest

from serving.arguments import Arguments, Autoscaling
from serving.http.policy_app import PolicyApp
from serving.policy.errors import PolicyFailed
from serving.replica import batching
from serving.replica.served_policy import ServedPolicy
from tests.serving.asking import answers_together, ask, post, served
from tests.serving.policies import CONTRARY_BUNDLE

ONE = b'{"observation": [0.1, 0.2, 0.3, 0.4]}'


def test_a_replaced_policy_answers_from_the_next_request_on(app: PolicyApp) -> None:
    app.served = served(version=4)
    assert ask(app, body=ONE).headers["x-model-version"] == "4"


class Paused:
    """Makes a policy wait in `act`, in its thread, until it is released; then it computes, or fails."""

    fails = False

    def __init__(self, served: ServedPolicy) -> None:
        self.entered, self.released = threading.Event(), threading.Event()
        self._act = served.policy.act
        served.policy.act = self  # type: ignore[method-assign]

    def __call__(self, observations: Any) -> Any:
        self.entered.set()
        assert self.released.wait(10)
        if self.fails:
            raise PolicyFailed("out of memory")
        return self._act(observations)


@pytest.mark.parametrize(
    ("path", "body", "action"),
    [
        ("/", b'{"observation": [0, 0, 1, 0]}', b'"action":%d'),
        ("/invocations", b'{"inputs": [[0, 0, 1, 0]]}', b'"action":[%d]'),
        (
            "/v2/models/cartpole-ppo/infer",
            b'{"inputs": [{"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 1, 0]}]}',
            b'"data":[%d]',
        ),
    ],
)
def test_a_version_that_is_replaced_during_a_request_computes_and_labels_its_response(
    path: str, body: bytes, action: bytes
) -> None:
    old, new = served(version=3), served(CONTRARY_BUNDLE, version=4)
    paused = Paused(old)
    app = PolicyApp(old)

    async def replace_during_a_request() -> list[tuple[int, dict[bytes, bytes], bytes]]:
        request = asyncio.create_task(post(app, body, path))
        await asyncio.to_thread(paused.entered.wait, 10)
        app.served = new
        later = await post(app, body, path)
        paused.released.set()
        return [await request, later]

    responses = asyncio.run(replace_during_a_request())
    assert [status for status, _, _ in responses] == [200, 200]
    assert [headers[b"x-model-version"] for _, headers, _ in responses] == [b"3", b"4"]
    assert all(action % expected in body for expected, (_, _, body) in zip((1, 0), responses, strict=True))


@pytest.mark.parametrize(("also_fails", "answer"), [(False, (200, b"4")), (True, (500, b"3"))])
def test_what_a_replaced_version_fails_to_answer_its_successor_answers_if_it_can(
    *, also_fails: bool, answer: tuple[int, bytes]
) -> None:
    old, new = served(version=3), served(version=4)
    paused = Paused(old)
    paused.fails = True
    app = PolicyApp(old)

    async def replace_during_a_request() -> tuple[int, dict[bytes, bytes], bytes]:
        request = asyncio.create_task(post(app, ONE))
        await asyncio.to_thread(paused.entered.wait, 10)
        app.served = new
        if also_fails:
            app.served.batcher._act = paused
        paused.released.set()
        return await request

    status, headers, _ = asyncio.run(replace_during_a_request())
    assert (status, headers[b"x-model-version"]) == answer


def test_an_overloaded_replica_rejects_a_request_before_it_decodes_the_body() -> None:
    policy = served()
    paused = Paused(policy)
    app = PolicyApp(policy, Arguments(max_ongoing_requests=1))

    async def overload() -> tuple[int, int]:
        request = asyncio.create_task(post(app, ONE))
        await asyncio.to_thread(paused.entered.wait, 10)
        rejected, _, _ = await post(app, b"this is not JSON")
        paused.released.set()
        return (await request)[0], rejected

    assert asyncio.run(overload()) == (200, 503)


def test_requests_for_two_versions_never_share_a_batch() -> None:
    old, new = served(version=3), served(CONTRARY_BUNDLE, version=4)
    app = PolicyApp(old, Arguments(max_batch_size=16, batch_wait_timeout_s=0.05))

    async def requests_around_a_promotion() -> list[tuple[bytes, bytes]]:
        tasks = [asyncio.create_task(post(app, b'{"observation": [0, 0, 1, 0]}')) for _ in range(2)]
        await asyncio.sleep(0)
        app.served = new
        tasks += [asyncio.create_task(post(app, b'{"observation": [0, 0, 1, 0]}')) for _ in range(3)]
        return [(headers[b"x-model-version"], body) for _, headers, body in await asyncio.gather(*tasks)]

    expected = [(b"3", b'{"action":1}')] * 2 + [(b"4", b'{"action":0}')] * 3
    assert asyncio.run(requests_around_a_promotion()) == expected
    assert app.metrics.batch_size.cumulative()[:3] == [("1", 0), ("2", 1), ("4", 2)]


def test_lifespan_is_acknowledged_and_websockets_are_rejected(app: PolicyApp) -> None:
    assert exchange(app, "lifespan", ["lifespan.startup", "lifespan.shutdown"]) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert exchange(app, "websocket", ["websocket.connect"]) == ["websocket.close"]


def exchange(app: PolicyApp, kind: str, types: list[str]) -> list[str]:
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": types.pop(0)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(app({"type": kind}, receive, send))
    return sent


def test_every_response_is_json(app: PolicyApp) -> None:
    for path in ("/", "/model", "/health", "/x"):
        json.loads(ask(app, "GET", path).body)


@pytest.fixture
def slow_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every policy count as slow."""
    monkeypatch.setattr(batching, "QUICK_S", -1.0)


@pytest.mark.usefixtures("slow_policy")
def test_requests_beyond_the_limit_are_rejected_at_once_with_retry_after() -> None:
    found = answers_together(PolicyApp(served(), Arguments(max_ongoing_requests=2)), *[ONE] * 3)
    assert [status for status, _, _ in found] == [200, 200, 503]
    _, headers, body = found[2]
    assert headers[b"retry-after"] == b"1"
    assert json.loads(body)["error"] == {
        "code": "overloaded",
        "message": "the server already holds 2 requests, its maximum; try again in a second",
    }


@pytest.mark.usefixtures("slow_policy")
def test_rejected_and_failed_requests_do_not_count_as_ongoing() -> None:
    app = PolicyApp(served(), Arguments(max_ongoing_requests=1))
    for _ in range(3):
        assert [status for status, _, _ in answers_together(app, ONE, ONE)] == [200, 503]
        assert [status for status, _, _ in answers_together(app, b"hello")] == [400]


@pytest.fixture
def quick_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every policy that was measured count as quick, however busy this machine is."""
    monkeypatch.setattr(batching, "QUICK_S", 60.0)


def with_measured_policy(app: PolicyApp) -> PolicyApp:
    """Return the application after it has measured its policy."""
    for _ in range(3):
        assert [status for status, _, _ in answers_together(app, ONE)] == [200]
    return app


@pytest.mark.usefixtures("quick_policy")
def test_a_quick_policy_rejects_no_requests() -> None:
    app = with_measured_policy(PolicyApp(served(), Arguments(max_ongoing_requests=2)))
    assert [status for status, _, _ in answers_together(app, *[ONE] * 9)] == [200] * 9


@pytest.mark.usefixtures("quick_policy")
def test_a_policy_that_replaces_a_quick_one_rejects_no_requests() -> None:
    app = with_measured_policy(PolicyApp(served(), Arguments(max_ongoing_requests=2)))
    app.served = served()
    assert [status for status, _, _ in answers_together(app, *[ONE] * 9)] == [200] * 9


@pytest.mark.usefixtures("quick_policy")
def test_an_autoscaled_replica_limits_requests_even_with_a_quick_policy() -> None:
    app = PolicyApp(served(), Arguments(max_ongoing_requests=2, autoscaling=Autoscaling(target_ongoing_requests=1)))
    assert [status for status, _, _ in answers_together(app, ONE)] == [200]
    assert sorted(status for status, _, _ in answers_together(app, *[ONE] * 4)) == [200, 200, 503, 503]
