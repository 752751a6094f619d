import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from serving.play.protocol import with_keep_alive
from tests.serving.asking import ask, served
from tests.serving.play.viewer import Viewer, environments
from tests.serving.policies import CONTRARY_BUNDLE, EXPLORING_BUNDLE


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_page_is_served_with_a_strict_security_policy(app: PolicyApp, method: str) -> None:
    async def load() -> Viewer:
        viewer = Viewer(app, method, "/play")
        await viewer.request
        return viewer

    page = asyncio.run(load())
    headers = dict(page.start["headers"])
    assert (page.start["status"], headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert headers[b"content-security-policy"].startswith(b"default-src 'none'; ")
    assert headers[b"x-model-version"] == b"3"
    assert page.raw[0].startswith(b"<!doctype html>")


@pytest.mark.parametrize("path", ["/play", "/play/events"])
def test_with_zero_sessions_the_paths_do_not_exist(path: str) -> None:
    answer = ask(PolicyApp(served(), Arguments(play_sessions=0)), "GET", path)
    assert (answer.status, answer.json()["error"]["code"]) == (404, "path_unknown")


def test_other_methods_are_rejected(app: PolicyApp) -> None:
    answer = ask(app, "POST", "/play/events")
    assert (answer.status, answer.headers["allow"]) == (405, "GET")


def test_sessions_beyond_the_limit_are_rejected_until_one_ends() -> None:
    app = PolicyApp(served(EXPLORING_BUNDLE), Arguments(play_sessions=1))

    async def watch() -> None:
        first = Viewer(app)
        await first.await_events("step", 2)
        second = Viewer(app)
        await second.request
        assert second.start["status"] == 503
        assert (b"retry-after", b"1") in second.start["headers"]
        assert b'"play_busy"' in second.raw[0]
        await first.disconnect()
        third = Viewer(app)
        await third.await_events("session")
        await third.disconnect()
        assert third.start["status"] == 200

    asyncio.run(watch())


def test_sessions_that_begin_at_the_same_time_are_limited_too() -> None:
    app = PolicyApp(served(EXPLORING_BUNDLE), Arguments(play_sessions=2))

    async def watch() -> None:
        viewers = [Viewer(app) for _ in range(5)]
        async with asyncio.timeout(20):
            await asyncio.gather(*(viewer.request for viewer in viewers[2:]))
        assert [viewer.start["status"] for viewer in viewers] == [200, 200, 503, 503, 503]
        assert len(environments()) <= 2
        for viewer in viewers[:2]:
            await viewer.disconnect()

    asyncio.run(watch())


def test_a_promotion_shows_in_a_running_session() -> None:
    app = PolicyApp(served(EXPLORING_BUNDLE))

    async def watch() -> list[int]:
        viewer = Viewer(app)
        await viewer.await_events("step")
        app.served = served(CONTRARY_BUNDLE, version=4)
        count = len(viewer.named("step"))
        steps = await viewer.await_events("step", count + 2)
        await viewer.disconnect()
        return [step["version"] for step in steps]

    versions = asyncio.run(watch())
    assert (versions[0], versions[-1]) == (3, 4)
    assert app.counts.answered >= len(versions), "a session asks as everyone does"
    assert app.metrics.request_ms.total == 0


async def slow(ended: list[bool]) -> AsyncGenerator[bytes, None]:
    try:
        yield b"one"
        await asyncio.sleep(0.1)
        yield b"two"
        await asyncio.sleep(60)
    finally:
        ended.append(True)


def test_a_comment_is_sent_first_and_whenever_there_is_no_event() -> None:
    async def read() -> tuple[list[bytes], list[bool]]:
        ended: list[bool] = []
        parts = with_keep_alive(slow(ended), 0.04)
        found: list[Any] = []
        while found.count(b":\n\n") < 5:
            found.append(await anext(parts))
        await parts.aclose()
        return found, ended

    found, ended = asyncio.run(read())
    assert found[:3] == [b":\n\n", b"one", b":\n\n"]
    assert b"two" in found
    assert ended == [True], "the events are closed"
