"""The segments that a replica writes: the current one, and the next, which a thread prepares.

The thread also closes segments, so that no request waits for the disk. Only if segments fill faster than the thread
can prepare them, a request begins one itself.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.experience.journal.records import DROPPED, FORMAT, FRAME, VERSION, VersionSpec, json_payload
from serving.experience.journal.segment import SUFFIX, SegmentWriter

logger = logging.getLogger(__name__)

SEGMENT_BYTES = 8 << 20
SEAL_AFTER_S = 10.0
"""A segment with records is closed after this time, so that they soon become data."""
LOOK_EVERY_S = 1.0
"""The pause between two looks at the size of the directory, and between two attempts after one failed."""
HEADER_ROOM = 4096
"""Bytes of a segment beside its largest record: its header, the description of a version, and what was dropped."""

FULL, DISK = "full", "disk"
"""Why records are dropped: the journal has reached its limit, or the disk refuses."""


@dataclass(frozen=True)
class Place:
    """Where segments are written, and how large all of them may become.

    Attributes:
        directory: the journal's directory on this node.
        replica: the replica's identifier, a part of the segments' names.
        header: what the first record of each segment says, beside its number and the time.
        max_bytes: the limit of the directory, which all replicas of the application on this node share.
        segment_bytes: the size of a segment.
    """

    directory: Path
    replica: str
    header: dict[str, Any]
    max_bytes: int
    segment_bytes: int = SEGMENT_BYTES


class Segments:
    """Appends records. One thread appends; another one, `maintain`, prepares and closes."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.size = 0
        """The size of the directory in bytes, when it was last looked at."""
        self.failure = ""
        """FULL or DISK while no segment can be begun, else empty."""
        self._lock = threading.Lock()
        self._number = 0
        self._current: SegmentWriter | None = None
        self._next: SegmentWriter | None = None
        self._retired: list[SegmentWriter] = []
        self._described: dict[int, VersionSpec] = {}
        self._experiment: bytes | None = None
        """The last EXPERIMENT record of the current segment."""
        self._begun_at = 0.0
        self._retry_at = 0.0
        self._dropped = {"decisions": 0, "feedback": 0}
        self.wanted = threading.Event()
        """Set when the thread has something to do before its next look."""

    def append(self, payload: bytes, version: VersionSpec | None = None, experiment: bytes | None = None) -> bool:
        """Append a record, after the descriptions of its version and its experiment if the segment has none.

        Return False if it cannot.
        """
        with self._lock:
            if self._current is not None and self._write(self._current, payload, version, experiment):
                return True
            current = self._advance(len(payload))
            return current is not None and self._write(current, payload, version, experiment)

    def drop(self, kind: str, number: int) -> None:
        """Note that records were lost; the next segment says how many."""
        self._dropped[kind] += number

    def maintain(self) -> None:
        """Close what is full or old, and prepare the next segment. It is called about once a second."""
        self._look()
        current = self._current
        is_old = current is not None and not current.is_empty and time.monotonic() - self._begun_at > SEAL_AFTER_S
        if self._next is None and (current is None or is_old or current.used > current.size // 2):
            prepared = self._created(0)  # without the lock, because it may take milliseconds
            with self._lock:
                prepared, self._next = self._next, prepared
                if prepared is not None:  # a request was faster
                    self._retired.append(prepared)
        with self._lock:
            if self._current is None or (is_old and self._current is current):
                self._advance(0)
            retired, self._retired = self._retired, []
        for segment in retired:
            segment.close()

    def close(self) -> None:
        """Close all segments."""
        with self._lock:
            segments = [*self._retired, *filter(None, (self._current, self._next))]
            self._retired, self._current, self._next = [], None, None
            self._retry_at = float("inf")
        for segment in segments:
            segment.close()

    def _write(
        self, segment: SegmentWriter, payload: bytes, version: VersionSpec | None, experiment: bytes | None
    ) -> bool:
        if version is not None and self._described.get(version.version) is not version:
            if not segment.append(json_payload(VERSION, version.to_json())):
                return False
            self._described[version.version] = version
        if experiment is not None and experiment != self._experiment:
            if not segment.append(experiment):
                return False
            self._experiment = experiment
        if not segment.append(payload):
            return False
        if segment.used > segment.size // 2 and self._next is None:
            self.wanted.set()
        return True

    def _advance(self, size: int) -> SegmentWriter | None:
        """Replace the current segment by one with room for a record, and return it; None if there is none."""
        if self._current is not None:
            self._retired.append(self._current)
            self.wanted.set()
        current, self._next = self._next, None
        if current is not None and current.size - current.used < size + HEADER_ROOM:
            self._retired.append(current)
            current = None
        self._current = current or self._created(size)
        self._described, self._experiment, self._begun_at = {}, None, time.monotonic()
        if self._current is not None and any(self._dropped.values()):
            content = {**self._dropped, "time_ns": time.time_ns()}
            self._current.append(json_payload(DROPPED, content))
            self._dropped = dict.fromkeys(self._dropped, 0)
        return self._current

    def _created(self, size: int) -> SegmentWriter | None:
        """Create a segment with room for a record. It returns None if it cannot, and for a while after that."""
        if time.monotonic() < self._retry_at:
            return None
        place = self._place
        size = max(place.segment_bytes, size + FRAME.size + HEADER_ROOM)
        if self.size + size > place.max_bytes:
            self._fail(FULL, f"its limit is {place.max_bytes} bytes")
            return None
        self._number += 1
        header = {"format": FORMAT, **place.header, "replica": place.replica, "segment": self._number}
        path = place.directory / f"{place.replica}-{self._number}{SUFFIX}"
        try:
            place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            segment = SegmentWriter(path, size, {**header, "created_ns": time.time_ns()})
        except OSError as error:
            self._fail(DISK, error.strerror or str(error))
            return None
        self.size += size
        if self.failure:
            logger.warning("the journal of experience in %s is written again", place.directory)
        self.failure = ""
        return segment

    def _fail(self, failure: str, reason: str) -> None:
        self._retry_at = time.monotonic() + LOOK_EVERY_S
        if failure != self.failure:
            logger.error(
                "decisions are not recorded: the journal in %s is %s: %s", self._place.directory, failure, reason
            )
        self.failure = failure

    def _look(self) -> None:
        """Measure the directory."""
        total = 0
        try:
            for file in self._place.directory.iterdir():
                try:
                    total += file.stat().st_size
                except FileNotFoundError:  # it became data meanwhile
                    continue
        except OSError:
            return
        self.size = total


def run(segments: Segments, stopped: Callable[[], bool], tick: Callable[[], None]) -> None:
    """Maintain segments until `stopped()`, and call `tick` about once a second."""
    while not stopped():
        segments.wanted.wait(LOOK_EVERY_S)
        segments.wanted.clear()
        try:
            segments.maintain()
            tick()
        except Exception:
            logger.exception("maintaining the journal of experience failed")
            time.sleep(LOOK_EVERY_S)
