"""Ctrl-C and SIGTERM: one of them stops the server, a second one does not stop it from cleaning up."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop(BaseException):
    """A signal asked the process to end. No Exception, so that nothing recovers from it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise Stop in the main thread at the first SIGINT or SIGTERM, and ignore those that follow, to the end."""
    before = {signum: signal.signal(signum, _stop) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Give the process back the handlers it had.

    Not after an exception: it may be Stop, and what cleans up after it must not be interrupted.
    """
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def ignore_signals() -> None:
    """Let nothing interrupt what comes now."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    ignore_signals()
    raise Stop(signum)
