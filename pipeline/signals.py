"""SIGINT, SIGTERM and the death of `mlflow run`, each turned into the exception Interrupted."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from pipeline.errors import Interrupted

_PARENT_POLL_S = 0.5
_AGAIN_S = 0.05


class _Received:
    """Which signal interrupted this process; the name is None before."""

    signal_name: str | None = None


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, the first SIGINT or SIGTERM raises Interrupted in the main thread.

    A later SIGTERM is ignored, since `mlflow run` sends one after the terminal's Ctrl-C and what follows is cleaning
    up; a second Ctrl-C ends the process at once. `mlflow run`, killed by SIGTERM, tells its child nothing: there, the
    loss of the parent process counts as a SIGTERM.
    """
    _Received.signal_name = None
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    unraisable_before, sys.unraisablehook = sys.unraisablehook, _raise_again
    ended = threading.Event()
    if "MLFLOW_RUN_ID" in os.environ:
        threading.Thread(target=_watch_parent, args=(os.getppid(), ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        sys.unraisablehook = unraisable_before
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def recognised() -> Iterator[None]:
    """Within, an error that followed a signal is Interrupted again.

    A cut-short import may raise ImportError, Ray's native code KeyboardInterrupt for whatever a handler raised.
    """
    try:
        yield
    except Interrupted:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if _Received.signal_name is None:
            raise
        raise Interrupted(_Received.signal_name) from error


def regain_sigterm() -> None:
    """Handle SIGTERM as before another library's native code, Ray's, put a handler of its own in front."""
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


@dataclass
class Pending:
    """A signal that waits until its turn comes.

    Attributes:
        signal_name: Of the first that came; None before.
    """

    signal_name: str | None = None


@contextlib.contextmanager
def deferred() -> Iterator[Pending]:
    """Within, the first SIGINT or SIGTERM is only noted; on leaving, it raises Interrupted.

    A second Ctrl-C raises Interrupted at once.
    """
    pending = Pending()

    def note(number: int, frame: FrameType | None) -> None:
        if pending.signal_name is not None:
            _interrupt(number, frame)
        pending.signal_name = signal.Signals(number).name
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield pending
    finally:
        if pending.signal_name is None:
            for number, handler in before.items():
                signal.signal(number, handler)
    if pending.signal_name is not None:
        raise Interrupted(pending.signal_name)


def _interrupt(number: int, _: FrameType | None) -> None:
    # Ray, while it starts, puts a handler before this one that dumps the stack and sets an alarm to abort the process.
    signal.alarm(0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _Received.signal_name = signal.Signals(number).name
    raise Interrupted(_Received.signal_name)


def _raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Send the signal again whose Interrupted came while an object was being collected, where Python drops it."""
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    again = (os.getpid(), signal.Signals[unraisable.exc_value.signal_name])
    threading.Timer(_AGAIN_S, os.kill, again).start()


def _watch_parent(parent: int, ended: threading.Event) -> None:
    while not ended.wait(_PARENT_POLL_S):
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            return
