import gc
import threading
import weakref

import pytest

from serving.replica.errors import PinInvalid
from serving.replica.pinned_versions import PinnedVersions, pin_of
from tests.serving.asking import served
from tests.workshop import await_true


def numbers(pinned: PinnedVersions, *pins: bytes) -> list[int]:
    """The versions that answer requests with these pins while version 9 is the current one."""
    current = served(version=9)
    return [pinned.choose(pin, current).version.version for pin in pins]


def test_replaced_versions_are_held_and_the_oldest_is_released_for_a_third() -> None:
    pinned = PinnedVersions(60)
    for version in (3, 4, 5):
        pinned.keep(served(version=version))
    assert pinned.numbers == (4, 5)
    assert numbers(pinned, b"3", b"4", b"5", b"9") == [9, 4, 5, 9]


def test_a_version_that_is_replaced_again_is_held_once() -> None:
    pinned = PinnedVersions(60)
    for version in (3, 4, 3):
        pinned.keep(served(version=version))
    assert pinned.numbers == (4, 3)


def test_the_current_version_is_preferred_to_a_held_one_of_the_same_number() -> None:
    pinned, current = PinnedVersions(60), served(version=3)
    pinned.keep(served(version=3))
    assert pinned.choose(b"3", current) is current
    pinned.drop(3)
    assert pinned.numbers == ()


def test_without_a_grace_no_version_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Timer, "start", lambda _self: None)
    pinned = PinnedVersions(0)
    pinned.keep(served(version=3))
    assert pinned.numbers == ()


def test_the_memory_of_a_version_is_released_when_its_grace_is_over() -> None:
    pinned, old = PinnedVersions(0.01), served(version=3)
    released = weakref.ref(old)
    pinned.keep(old)
    del old

    def is_released() -> bool:
        gc.collect()
        return released() is None

    await_true(is_released, "the replaced version is released", 10)
    assert pinned.numbers == ()


def test_a_version_answers_no_longer_than_its_grace_even_if_the_timer_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Timer, "start", lambda _self: None)
    pinned = PinnedVersions(1e-9)
    pinned.keep(served(version=3))
    assert pinned.numbers == (3,)
    assert numbers(pinned, b"3") == [9]


def test_no_timer_is_left_of_versions_that_are_released_early() -> None:
    before = threading.active_count()
    pinned = PinnedVersions(60)
    for version in range(3, 9):
        pinned.keep(served(version=version))
    pinned.drop(7)
    pinned.drop(8)
    await_true(lambda: threading.active_count() <= before, "the timers end", 10)


@pytest.mark.parametrize("pin", [b"", b"v3", b"-3", b"3.0", b" 3", b"3\n", b"\xb3", b"1" * 19])
def test_a_pin_that_is_no_version_is_rejected(pin: bytes) -> None:
    with pytest.raises(PinInvalid, match="expected the X-Model-Version of the episode's last answer"):
        numbers(PinnedVersions(60), pin)


def test_the_pin_is_found_among_the_headers() -> None:
    assert pin_of([(b"host", b"x"), (b"x-pin-version", b"3")]) == b"3"
    assert pin_of([(b"host", b"x")]) is None
