"""Reads what a journal recorded."""

from pathlib import Path
from typing import Any

from serving.experience.journal.records import (
    DECISIONS,
    DROPPED,
    FEEDBACK,
    VERSION,
    Decisions,
    VersionSpec,
    read_decisions,
)
from serving.experience.journal.segment import Record, Segment


def records(directory: Path) -> list[Record]:
    """Return the records of all segments, the oldest segment of a replica first."""
    paths = sorted(directory.glob("*.segment"), key=lambda path: int(path.stem.rsplit("-", 1)[1]))
    return [record for path in paths for record in Segment.read(path).records]


def decisions(directory: Path) -> list[Decisions]:
    """Return the decisions of all requests."""
    specs: dict[int, VersionSpec] = {}
    found = []
    for record in records(directory):
        if record.kind == VERSION:
            spec = VersionSpec.from_json(record.content)
            specs[spec.version] = spec
        elif record.kind == DECISIONS:
            found.append(read_decisions(record.payload, specs[int.from_bytes(record.payload[4:8], "little")]))
    return found


def feedback(directory: Path) -> list[dict[str, Any]]:
    """Return the content of all reports."""
    return [record.content for record in records(directory) if record.kind == FEEDBACK]


def dropped(directory: Path) -> list[dict[str, Any]]:
    """Return what the segments say was lost before them."""
    return [record.content for record in records(directory) if record.kind == DROPPED]
