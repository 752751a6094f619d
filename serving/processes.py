"""Starts and ends child processes: their environment, and how they end with their parent."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

NICENESS = 10
"""The niceness of child processes, so that requests are computed first."""


def child_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment variables for a child that can import all that this process can import.

    Args:
        variables: more variables.
    """
    path = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
    # OpenBLAS would start a pool of threads that no child needs.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OPENBLAS_NUM_THREADS": "1", **variables}


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends. Only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Make this process the parent of all descendants whose own parent dies. Only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def kill_children() -> None:
    """Kill all children of this process, and the orphans that it adopts meanwhile, until there are none.

    Ray's agents wait up to a minute for a Ray that was stopped while it started. Their parent has died by then.
    """
    while children := _children():
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        for child in children:
            with suppress(ChildProcessError):  # another thread has waited for it
                os.waitpid(child, 0)


def _children() -> list[int]:
    children: list[int] = []
    for thread in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            children += map(int, thread.read_text().split())
    return children
