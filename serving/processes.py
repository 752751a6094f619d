"""Processes whose parent died before them: they come to this one, which ends them when it ends.

Ray's agents wait up to a minute for a Ray that was stopped while it started; they are nobody's children by then.
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PR_SET_PDEATHSIG = 1

NICENESS = 10
"""Requests come first: a child process takes what they leave of the cores."""


def adopt() -> None:
    """Become the parent of descendants that lose theirs. Linux has this; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_children() -> None:
    """Kill every child of this process, and theirs as they come to it, until there is none."""
    while children := _children():
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in children:
            with suppress(ChildProcessError):  # another thread has waited for it
                os.waitpid(child, 0)


def _children() -> list[int]:
    threads = Path("/proc/self/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


def child_environment() -> dict[str, str]:
    """Return the environment in which a child finds this package, wherever its parent found it."""
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    # A pool of threads for linear algebra that nothing here does would cost memory and a start.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places)), "OPENBLAS_NUM_THREADS": "1"}


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
