"""Keeps replaced versions loaded for a while, so that an episode ends with the version that it began with.

A client sends the version of its episode's last answer in the header `X-Pin-Version`.
"""

import re
import threading
from collections.abc import Iterable
from time import monotonic
from typing import NamedTuple

from serving.replica.errors import PinInvalid
from serving.replica.served_policy import ServedPolicy

HEADER = b"x-pin-version"
REPINNED = (b"x-repinned", b"true")
"""The response header that tells a client that another version than the pinned one answered."""

MAX_HELD = 2
"""The most replaced versions that stay loaded, because each takes the memory of a policy."""

_VERSION = re.compile(rb"[0-9]{1,18}")


def pin_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the value of `X-Pin-Version`, or None if the headers have none."""
    for name, value in headers:
        if name == HEADER:
            return value
    return None


class Held(NamedTuple):
    """A replaced version, the `monotonic` time until which it answers, and the timer that then releases it."""

    served: ServedPolicy
    until: float
    timer: threading.Timer


class PinnedVersions:
    """The versions that were replaced within the last `grace_s` seconds, at most MAX_HELD of them.

    The thread that replaces a version calls `keep` and `drop`, the event loop `choose`. A timer releases the memory of
    a version when its time is over, even if there are neither requests nor promotions.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._held: dict[int, Held] = {}
        """By number, the last replaced one last. It is replaced as a whole, so that reading it needs no lock."""
        self._lock = threading.RLock()

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the versions that are held, the last replaced one last."""
        return tuple(self._held)

    def choose(self, pin: bytes, current: ServedPolicy) -> ServedPolicy:
        """Return the version that a pin names: the current one, or one that is held; for any other, the current one.

        Raises:
            PinInvalid: the pin is not the number of a version.
        """
        if not _VERSION.fullmatch(pin):
            raise PinInvalid(pin.decode("latin-1"))
        number = int(pin)
        held = None if number == current.version.version else self._held.get(number)
        return held.served if held is not None and monotonic() < held.until else current

    def keep(self, replaced: ServedPolicy) -> None:
        """Hold a version that is about to be replaced. It does nothing if pinning is off."""
        if not self._grace_s:
            return
        number = replaced.version.version
        timer = threading.Timer(self._grace_s, self._release, (replaced,))
        timer.daemon = True
        with self._lock:
            self.drop(number)
            for oldest in self.numbers[: 1 - MAX_HELD]:
                self.drop(oldest)
            self._held = {**self._held, number: Held(replaced, monotonic() + self._grace_s, timer)}
        timer.start()

    def drop(self, number: int) -> None:
        """Release a version, because another one takes its place or it is the current one again."""
        with self._lock:
            if number in self._held:
                self._held[number].timer.cancel()
                self._held = {key: held for key, held in self._held.items() if key != number}

    def _release(self, replaced: ServedPolicy) -> None:
        with self._lock:
            self._held = {key: held for key, held in self._held.items() if held.served is not replaced}
