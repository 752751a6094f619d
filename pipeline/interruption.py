"""SIGINT, SIGTERM and the death of `mlflow run`, each turned into the exception Interrupted."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from pipeline.errors import Interrupted

_PARENT_POLL_S = 0.5


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within, the first SIGINT or SIGTERM raises Interrupted in the main thread.

    A later SIGTERM is ignored, since `mlflow run` sends one after the terminal's Ctrl-C and what follows is cleaning
    up; a second Ctrl-C ends the process at once. `mlflow run`, killed by SIGTERM, tells its child nothing: there, the
    loss of the parent process counts as a SIGTERM.
    """
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    ended = threading.Event()
    if "MLFLOW_RUN_ID" in os.environ:
        threading.Thread(target=_watch_parent, args=(os.getppid(), ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted(signal.Signals(number).name)


def _watch_parent(parent: int, ended: threading.Event) -> None:
    while not ended.wait(_PARENT_POLL_S):
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            return
