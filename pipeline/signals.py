"""Interruption by SIGINT, by SIGTERM, by SIGHUP of a terminal that closes, or by the death of `mlflow run`.

The first signal is recorded. Outside `deferred`, it also raises Interrupted in the main thread, which ends an import
or a wait at once. Within `deferred`, the running code ends itself: it calls `check` where it is safe to stop. A second
SIGINT does not wait for that, and the first signal no longer than the block allows.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from pipeline.errors import Interrupted

_PARENT_POLL_S = 0.5
_REDELIVERY_S = 0.05


class _Interruption:
    """The state of this process: the name of the first signal, and what it does in the current block."""

    signal_name: str | None = None
    is_deferred = False
    longest_s = 0.0
    is_immediate = False
    redelivery: threading.Timer | None = None


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
    previous_hook, sys.unraisablehook = sys.unraisablehook, _deliver_again
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
        _cancel_redelivery()
        sys.unraisablehook = previous_hook
        _Interruption.signal_name = None
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred(longest_s: float = 0.0) -> Iterator[None]:
    """Only record the first signal within the block; `check`, also called at the end of it, raises Interrupted.

    A second signal, which can only be SIGINT, raises Interrupted at once.

    Args:
        longest_s: Seconds after the first signal at which Interrupted is raised wherever the main thread is, as in a
            step of an environment that does not return; 0 for no limit.
    """
    if threading.current_thread() is not threading.main_thread():  # signals interrupt the main thread only
        yield
        return
    previous = _Interruption.is_deferred, _Interruption.longest_s
    _Interruption.is_deferred, _Interruption.longest_s = True, longest_s
    try:
        yield
    finally:
        _Interruption.is_deferred, _Interruption.longest_s = previous
    check()


@contextlib.contextmanager
def immediate() -> Iterator[None]:
    """Let the first signal raise Interrupted at once within the block, although the block is within `deferred`."""
    check()
    previous, _Interruption.is_immediate = _Interruption.is_immediate, True
    try:
        yield
    finally:
        _Interruption.is_immediate = previous


def received() -> str | None:
    """Return the name of the signal that interrupts this process, or None."""
    return _Interruption.signal_name


def check() -> None:
    """Raise Interrupted if a signal was received.

    Raises:
        Interrupted: After a signal.
    """
    if _Interruption.signal_name is not None:
        _cancel_redelivery()
        signal.setitimer(signal.ITIMER_REAL, 0)
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
    if is_first and _Interruption.is_deferred:
        # A second SIGINT still raises Interrupted, in the code that ends a deferred block after the first signal.
        if _Interruption.is_immediate:
            check()
        signal.signal(signal.SIGALRM, lambda *_: check())
        signal.setitimer(signal.ITIMER_REAL, _Interruption.longest_s)
    else:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        check()


def _deliver_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send the signal again whose Interrupted Python dropped, as it does during garbage collection.

    Within `deferred`, the next call of `check` raises Interrupted.
    """
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
    elif not _Interruption.is_deferred:
        number = signal.Signals[unraisable.exc_value.signal_name]
        signal.signal(number, _handle)
        # Another thread sends it after this function, from which an exception would be dropped too.
        main = threading.main_thread().ident
        _Interruption.redelivery = threading.Timer(_REDELIVERY_S, signal.pthread_kill, (main, number))
        _Interruption.redelivery.start()


def _cancel_redelivery() -> None:
    if _Interruption.redelivery is not None:
        _Interruption.redelivery.cancel()
        _Interruption.redelivery = None


def _watch_parent(parent: int, ended: threading.Event) -> None:
    while not ended.wait(_PARENT_POLL_S):
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            return
