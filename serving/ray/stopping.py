"""SIGINT, SIGTERM and SIGHUP: the first one stops the server, later ones do not interrupt its cleanup.

A terminal that closes sends SIGHUP. If it is ignored, as under `nohup`, it stays ignored.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop(BaseException):
    """Raised by a signal that ends the process. It is no Exception, so that no `except Exception` handles it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise Stop in the main thread at the first of the signals, and ignore later ones until the block ends."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    for signum in SIGNALS:
        if signum != signal.SIGHUP or before[signum] != signal.SIG_IGN:
            signal.signal(signum, _stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def restore_handlers() -> Iterator[None]:
    """Restore the signal handlers that the block replaced, unless it raised.

    The exception may be Stop, and the cleanup that follows it must not be interrupted.
    """
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@contextmanager
def hangup_ignored_by_children() -> Iterator[None]:
    """Have the processes that the block starts ignore SIGHUP, which a closing terminal sends to them, too.

    They must live until the requests in progress are answered.
    """
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def ignore_signals() -> None:
    """Ignore the signals from now on."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    ignore_signals()
    raise Stop(signum)
