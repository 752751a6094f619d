import threading

import pytest

from serving.replica import identity
from serving.replica.identity import ReplicaCount
from tests.workshop import await_true


def counting() -> bool:
    return any(thread.name == "replica count" for thread in threading.enumerate())


def test_the_number_of_replicas_is_counted_when_it_is_asked_for_and_known_the_next_time() -> None:
    answered = threading.Event()
    count = ReplicaCount(4, lambda: answered.wait(60) and 2)
    assert count() == 4, "it must not wait for Serve"
    answered.set()
    await_true(lambda: count() == 2, "the replicas are counted")


def test_serve_is_not_asked_again_within_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(identity, "monotonic", lambda: now[0])
    asked: list[float] = []
    count = ReplicaCount(1, lambda: len(asked.append(now[0]) or asked))
    for at in (100.0, 109.0, 110.0, 119.0, 120.0):
        now[0] = at
        count()
        await_true(lambda: not counting(), "the count is over")
    assert asked == [100.0, 110.0, 120.0]


def test_the_last_number_stays_while_serve_cannot_tell() -> None:
    def fail() -> int:
        raise ConnectionError

    count = ReplicaCount(3, fail)
    count._refresh()  # in its thread, an exception would be printed to the replica's log every ten seconds
    assert count() == 3
