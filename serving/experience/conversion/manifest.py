"""The manifest of a converted segment: what it held, what was lost, and which files it became.

It is written after the files that it names. A file that no manifest names belongs to a segment that is still in the
journal, and is replaced when that is converted again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from serving.experience.conversion.audit import Audit
from serving.experience.conversion.decisions import Chunk, DecisionReader, Table
from serving.experience.journal.records import DROPPED
from serving.experience.tables import model_directory
from serving.release import release

FORMAT = 1

UNKNOWN_MODEL = "_unknown"
"""The directory of segments whose header and versions are lost."""


@dataclass(frozen=True)
class Origin:
    """The names that a segment's files have. They follow from its header, and from its file if that is lost."""

    model: str
    replica: str
    segment: int
    day: str

    @classmethod
    def of(cls, path: Path, header: dict[str, Any]) -> Self:
        """Return the origin of a segment, of which the header may be lost. Raises OSError if the file is gone."""
        replica, _, number = path.stem.rpartition("-")
        created = header.get("created_ns") or path.stat().st_mtime_ns
        return cls(
            model=str(header.get("model") or UNKNOWN_MODEL),
            replica=str(header.get("replica") or replica or path.stem),
            segment=int(header.get("segment", number if number.isdecimal() else 0)),
            day=datetime.fromtimestamp(created / 1e9, UTC).strftime("%Y-%m-%d"),
        )

    def decisions(self, table: Table) -> str:
        """Return the path of a table of decisions below the experience URI."""
        more = f"-{table.number}" if table.number > 1 else ""  # one version number, and other columns
        return self._path("decisions", f"-v{table.version.version}{more}.parquet")

    @property
    def feedback(self) -> str:
        """The path of the reports of clients."""
        return self._path("feedback", ".parquet")

    @property
    def manifest(self) -> str:
        """The path of the manifest."""
        return self._path("manifests", ".json")

    def _path(self, kind: str, end: str) -> str:
        replica = quote(self.replica, safe="")
        return f"{kind}/{model_directory(self.model)}/{self.day}/{replica}-{self.segment}{end}"


@dataclass
class Manifest:
    """Counts what a segment holds while it is converted."""

    origin: Origin
    header: dict[str, Any]
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The counts of each version by its number."""
    audit: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    feedback: int = 0
    lost_bytes: int = 0
    unreadable: int = 0
    times: list[int] = field(default_factory=list)
    """The first and the last time of each chunk, in ns since 1970."""

    def add_chunk(self, chunk: Chunk, audit: Audit) -> None:
        """Count the decisions of a chunk."""
        version = chunk.table.version
        counts = self.versions.setdefault(
            str(version.version),
            {"run_id": version.run_id, "digests": version.digests, "decisions": 0, "audit": Counter()},
        )
        counts["decisions"] += len(chunk)
        counts["audit"].update(audit.counts)
        self.audit.update(audit.counts)
        self.times += [int(chunk.columns["time"].min()), int(chunk.columns["time"].max())]

    def add_feedback(self, times: Sequence[int]) -> None:
        """Count the reports of clients by their times."""
        self.feedback += len(times)
        self.times += [min(times), max(times)]

    def end(self, reader: DecisionReader, lost_bytes: int) -> None:
        """Take what is known once all records were read: what was lost, and the model if the header is."""
        self.lost_bytes, self.unreadable = lost_bytes, reader.unreadable
        for record in reader.others:
            if record.kind == DROPPED:
                self._add_dropped(record.content)
        if self.origin.model == UNKNOWN_MODEL and reader.versions:
            self.origin = replace(self.origin, model=next(iter(reader.versions.values())).name)

    def _add_dropped(self, content: dict[str, Any]) -> None:
        counts = {name: int(content.get(name, 0)) for name in ("decisions", "feedback")}
        self.dropped.update(counts)
        self.reasons[str(content.get("reason"))] += sum(counts.values())

    def add_file(self, path: str, content: bytes, rows: int) -> None:
        """Name a file that was written."""
        self.files[path] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "rows": rows}

    def content(self) -> bytes:
        """Return the file."""
        described = {
            "format": FORMAT,
            "release": release(),
            "header": self.header,
            "model": self.origin.model,
            "replica": self.origin.replica,
            "segment": self.origin.segment,
            "decisions": sum(self.audit.values()),
            "feedback": self.feedback,
            "time": [min(self.times), max(self.times)] if self.times else None,
            "versions": self.versions,
            "audit": self.audit,
            "dropped": {"decisions": 0, "feedback": 0, **self.dropped, "reasons": self.reasons},
            "lost_bytes": self.lost_bytes,
            "unreadable_records": self.unreadable,
            "files": self.files,
        }
        return json.dumps(described, indent=1).encode() + b"\n"
