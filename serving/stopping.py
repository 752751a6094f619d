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


def stop_on_signals() -> None:
    """Raise Stop in the main thread at the first SIGINT or SIGTERM, and ignore those that follow.

    Ray installs handlers of its own when it starts: call this again afterwards.
    """
    for signum in SIGNALS:
        signal.signal(signum, _stop)


@contextmanager
def signals_restored() -> Iterator[None]:
    """Give the process back the handlers it had."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def ignore_signals() -> None:
    """Let nothing interrupt what comes now."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    ignore_signals()
    raise Stop(signum)
