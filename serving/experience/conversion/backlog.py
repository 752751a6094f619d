"""The complete segments of a journal, which wait for their conversion."""

import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from serving.experience.journal.segment import SUFFIX, is_complete

STARTING_S = 60.0
"""A file stays without content this long only if its writer died between creating and locking it."""


class Backlog(NamedTuple):
    """What waits."""

    segments: int
    bytes: int


def backlog(journal: Path) -> Backlog:
    """Return how many complete segments a journal holds, and their size. It takes some microseconds a segment."""
    sizes = []
    for path in complete_segments(journal):
        with suppress(FileNotFoundError):  # it was converted meanwhile
            sizes.append(path.stat().st_size)
    return Backlog(len(sizes), sum(sizes))


def complete_segments(journal: Path) -> list[Path]:
    """Return the segments that no process writes any more, the oldest first; none if there is no such directory."""
    found = []
    for path in journal.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):
            status = path.stat()
            # A writer locks the file before it gives it a size. Until then, to try the lock could take it away.
            has_writer = status.st_size == 0 and time.time() - status.st_mtime < STARTING_S
            if not has_writer and is_complete(path):
                found.append((status.st_mtime_ns, path))
    return [path for _, path in sorted(found)]
