"""SIGINT and SIGTERM: the first one stops the server, later ones do not interrupt its cleanup."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)

REDELIVERY_S = 0.05
"""The delay before a signal whose exception Python dropped is sent again."""


class Stop(BaseException):
    """Raised by a signal that ends the process. It is no Exception, so that no `except Exception` handles it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise Stop in the main thread at the first SIGINT or SIGTERM, and ignore later ones until the block ends."""
    before = {signum: signal.signal(signum, _stop) for signum in SIGNALS}
    redeliveries: list[threading.Timer] = []
    hook, sys.unraisablehook = sys.unraisablehook, partial(_deliver_again, redeliveries)
    try:
        yield
    finally:
        for each in redeliveries:
            each.cancel()
        sys.unraisablehook = hook
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


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM from now on."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def _deliver_again(redeliveries: list[threading.Timer], unraisable: "sys.UnraisableHookArgs") -> None:
    """Send the signal again whose Stop Python dropped, as it does during garbage collection."""
    stop = unraisable.exc_value
    if not isinstance(stop, Stop):
        sys.__unraisablehook__(unraisable)
        return
    signal.signal(stop.signum, _stop)
    # Another thread sends it after this function, from which an exception would be dropped too.
    main = threading.main_thread().ident
    redeliveries.append(threading.Timer(REDELIVERY_S, signal.pthread_kill, (main, stop.signum)))
    redeliveries[-1].start()


def _stop(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    ignore_signals()
    raise Stop(signum)
