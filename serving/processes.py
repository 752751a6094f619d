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
