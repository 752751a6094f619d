"""Interruption by SIGINT, by SIGTERM, by SIGHUP of a terminal that closes, or by the death of `mlflow run`.

The first signal is recorded. Outside `deferred`, it also raises Interrupted in the main thread, which ends an import
or a wait at once. Within `deferred`, the running code ends itself: it calls `check` where it is safe to stop. A second
SIGINT does not wait for that.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from pipeline.errors import Interrupted

_PARENT_POLL_S = 0.5


class _Interruption:
    """The state of this process: the name of the first signal, and whether signals are only recorded."""

    signal_name: str | None = None
    is_deferred = False


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Handle the signals within the block; every exception that a signal causes leaves it as Interrupted.

    A SIGINT after Interrupted was raised kills the process. A SIGTERM after the first signal is ignored, because
    `mlflow run` sends one after the terminal's Ctrl-C. When SIGTERM kills `mlflow run`, its child receives no signal;
    the child therefore treats the loss of its parent process as a SIGTERM.

    Raises:
        Interrupted: After a signal.
    """
    previous = {number: signal.signal(number, _handle) for number in _signals()}
    ended = threading.Event()
    if "MLFLOW_RUN_ID" in os.environ:
        threading.Thread(target=_watch_parent, args=(os.getppid(), ended), daemon=True).start()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        # An interrupted import may raise ImportError, and Ray's native code KeyboardInterrupt, instead of Interrupted.
        if not isinstance(error, Interrupted):
            check()
        raise
    finally:
        ended.set()
        _Interruption.signal_name = None
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Only record the first signal within the block; `check`, also called at the end of it, raises Interrupted.

    A second signal, which can only be SIGINT, raises Interrupted at once.
    """
    previous, _Interruption.is_deferred = _Interruption.is_deferred, True
    try:
        yield
    finally:
        _Interruption.is_deferred = previous
    check()


def received() -> str | None:
    """Return the name of the signal that interrupts this process, or None."""
    return _Interruption.signal_name


def check() -> None:
    """Raise Interrupted if a signal was received.

    Raises:
        Interrupted: After a signal. Python drops an exception that a handler raises during garbage collection; the
            next call raises it then.
    """
    if _Interruption.signal_name is not None:
        raise Interrupted(_Interruption.signal_name)


def regain_sigterm() -> None:
    """Install Python's handler of SIGTERM again, after Ray's native code has replaced it."""
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _signals() -> list[signal.Signals]:
    """Return the signals that interrupt; SIGHUP does not if it is ignored, as under `nohup`."""
    is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([] if is_ignored else [signal.SIGHUP])]


def _handle(number: int, _: FrameType | None) -> None:
    # While Ray starts, its native handler runs before this one, and sets an alarm that aborts the process.
    signal.alarm(0)
    for later in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(later, signal.SIG_IGN)
    is_first = _Interruption.signal_name is None
    _Interruption.signal_name = _Interruption.signal_name or signal.Signals(number).name
    if not (is_first and _Interruption.is_deferred):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        check()


def _watch_parent(parent: int, ended: threading.Event) -> None:
    while not ended.wait(_PARENT_POLL_S):
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            return
