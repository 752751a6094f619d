"""Whatever is sent to whichever route, the answer is an answer. `make fuzz` does more of it, with a real server."""

import asyncio
import itertools
import tracemalloc
from typing import Any

import pytest

from serving.http.app import PolicyApp
from serving.policy.bundle import Bundle
from tests.serving.fuzz import Shot, ask_app, corpus, fault_of, shots
from tests.serving.policies import COUNTING_BUNDLE, EXPLORING_BUNDLE, ROBOT_BUNDLE, ask, served

REQUESTS = 1700
MAX_GROWTH_BYTES = 2_000_000


async def _fuzz(app: PolicyApp, source: Any, count: int) -> list[str]:
    answers = [(shot, await ask_app(app, shot)) for shot in itertools.islice(source, count)]
    return [fault for shot, answer in answers if (fault := fault_of(shot, *answer))]


@pytest.mark.parametrize(
    "bundle", [EXPLORING_BUNDLE, COUNTING_BUNDLE, ROBOT_BUNDLE], ids=["exploring", "counting", "robot"]
)
def test_no_request_gets_a_traceback_or_a_server_error(bundle: Bundle) -> None:
    app = PolicyApp(served(bundle, "fuzzed", 1))
    source = shots(corpus(ask(app, "GET", "/openapi.json").json()), seed=0)
    assert asyncio.run(_fuzz(app, source, REQUESTS)) == []


def test_memory_stays_flat() -> None:
    app = PolicyApp(served(EXPLORING_BUNDLE, "fuzzed", 1))
    source = shots(corpus(ask(app, "GET", "/openapi.json").json()), seed=1)
    asyncio.run(_fuzz(app, source, 300))
    tracemalloc.start()
    try:
        asyncio.run(_fuzz(app, source, 100))
        before, _ = tracemalloc.get_traced_memory()
        asyncio.run(_fuzz(app, source, 600))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < MAX_GROWTH_BYTES


def test_a_fault_is_one() -> None:
    shot = Shot("GET", "/")
    assert fault_of(shot, 500, b"") is not None
    assert fault_of(shot, 200, b"Traceback (most recent call last)") is not None
    assert fault_of(shot, 503, b"{}") is None
