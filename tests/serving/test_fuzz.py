"""Malformed requests to every route get proper responses. `make fuzz` sends more of them, to a real server."""

import asyncio
import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from serving.experience.journal.journal import Journal
from serving.experience.journal.segment import Segment
from serving.experience.journal.segments import Place
from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from tests.serving.asking import ask, served
from tests.serving.malformed import Request, ask_app, corpus, fault_of, mutated_requests
from tests.serving.policies import COUNTING_BUNDLE, EXPLORING_BUNDLE, ROBOT_BUNDLE

REQUESTS = 1700
MAX_GROWTH_BYTES = 2_000_000


async def _fuzz(app: PolicyApp, source: Any, count: int) -> list[str]:
    answers = [(request, await ask_app(app, request)) for request in itertools.islice(source, count)]
    return [fault for request, answer in answers if (fault := fault_of(request, *answer))]


@pytest.mark.parametrize(
    "bundle", [EXPLORING_BUNDLE, COUNTING_BUNDLE, ROBOT_BUNDLE], ids=["exploring", "counting", "robot"]
)
def test_no_request_causes_a_server_error_or_a_traceback(bundle: Bundle, tmp_path: Path) -> None:
    journal = Journal(Place(tmp_path, "fuzzed", {}, 1 << 26))
    journal.start()
    app = PolicyApp(served(bundle, "fuzzed", 1), journal=journal)
    source = mutated_requests(corpus(ask(app, "GET", "/openapi.json").json()), seed=0)
    assert asyncio.run(_fuzz(app, source, REQUESTS)) == []
    journal.stop()
    assert journal.counts.decisions > 0
    assert journal.counts.feedback > 0
    assert not any(Segment.read(path).lost_bytes for path in tmp_path.iterdir())


def test_memory_stays_flat() -> None:
    app = PolicyApp(served(EXPLORING_BUNDLE, "fuzzed", 1))
    source = mutated_requests(corpus(ask(app, "GET", "/openapi.json").json()), seed=1)
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


def test_a_500_and_a_traceback_are_faults_and_503_is_not() -> None:
    request = Request("GET", "/")
    assert fault_of(request, 500, b"") is not None
    assert fault_of(request, 200, b"Traceback (most recent call last)") is not None
    assert fault_of(request, 503, b"{}") is None
