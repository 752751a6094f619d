"""A segment: a preallocated, memory-mapped file of records.

What is written survives the death of the process, because the pages belong to the kernel. The writer holds a lock on
the file, which the kernel releases when the writer dies: a segment without a lock is complete.
"""

import fcntl
import json
import mmap
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from serving.experience.journal.records import FRAME, HEADER, MAGIC, frame, json_payload

SUFFIX = ".segment"


class SegmentWriter:
    """Appends records to a new segment. One thread at a time may write.

    Args:
        path: the file, which must not exist.
        size: its size in bytes. The space is allocated now, so that a full disk fails here and not at a write.
        header: the content of its first record.

    Raises:
        OSError: the file cannot be created, or the disk is full. Nothing is left behind.
    """

    def __init__(self, path: Path, size: int, header: dict[str, Any]) -> None:
        self.path, self.size = path, size
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(self._descriptor, 0, size)
            self._map = mmap.mmap(self._descriptor, size)
        except OSError:
            os.close(self._descriptor)
            path.unlink()
            raise
        self.used = 0
        self.append(json_payload(HEADER, header))
        self.empty_size = self.used

    @property
    def is_empty(self) -> bool:
        """Whether it holds only its header."""
        return self.used == self.empty_size

    def append(self, payload: bytes) -> bool:
        """Append a record. Return False, and write nothing, if it does not fit."""
        end = self.used + FRAME.size + len(payload)
        if end > self.size:
            return False
        self._map[self.used : end] = frame(payload)
        self.used = end
        return True

    def close(self) -> None:
        """Cut the file to what is written, and release the lock. An empty segment is deleted."""
        self._map.close()
        if self.is_empty:
            self.path.unlink(missing_ok=True)
        else:
            os.truncate(self._descriptor, self.used)
        os.close(self._descriptor)


class Record(NamedTuple):
    """One record of a segment."""

    offset: int
    """The position of its frame in the file."""
    kind: int
    payload: bytes

    @property
    def content(self) -> Any:
        """The content of a record in JSON."""
        return json.loads(self.payload[1:])


@dataclass
class Segment:
    """The records of a segment that could be read."""

    records: list[Record] = field(default_factory=list)
    lost_bytes: int = 0
    """Bytes that belong to no readable record: the power failed, or the file is damaged."""

    @property
    def header(self) -> dict[str, Any]:
        """The content of the header; empty if it is lost."""
        return next((record.content for record in self.records if record.kind == HEADER), {})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file, whatever its state: damaged records are left out and counted. Raises OSError."""
        content = path.read_bytes()
        segment = cls()
        segment.records = list(segment.scan(content))
        return segment

    def scan(self, content: bytes) -> Iterator[Record]:
        """Yield the records in the content of a file, and count the bytes that belong to none."""
        at = 0
        while at < len(content):
            record = _record_at(content, at)
            if record is not None:
                yield record
                at += FRAME.size + len(record.payload)
                continue
            found = content.find(MAGIC, at + 1)
            gap = content[at : found if found >= 0 else len(content)]
            self.lost_bytes += len(gap.rstrip(b"\0")) if found < 0 else len(gap)
            at += len(gap)


def _record_at(content: bytes, at: int) -> Record | None:
    """Return the record whose frame begins at a position, None if there is no whole one."""
    if len(content) - at < FRAME.size:
        return None
    magic, length, crc = FRAME.unpack_from(content, at)
    start = at + FRAME.size
    payload = content[start : start + length]
    if magic != MAGIC or not length or len(payload) < length or zlib.crc32(payload) != crc:
        return None
    return Record(at, payload[0], payload)


def is_complete(path: Path) -> bool:
    """Return whether no process writes the segment any more. Raises FileNotFoundError if it is gone."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
