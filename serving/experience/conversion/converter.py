"""Converts one segment. The steps have an order that a crash at any point survives.

1. the decisions of each version, 2. the reports of clients, 3. the manifest that names these files, each written in one
step; 4. the segment is deleted. A segment that is still there is converted again, into files of the same names.
"""

import logging
from pathlib import Path

import pyarrow as pa

from serving.experience.conversion.audit import Audit, Auditor
from serving.experience.conversion.decisions import DecisionReader, Table
from serving.experience.conversion.manifest import Manifest, Origin
from serving.experience.conversion.parquet import ParquetFile, decision_table, feedback_row, schema_of
from serving.experience.journal.records import DROPPED, FEEDBACK, FORMAT, MAGIC
from serving.experience.journal.segment import Segment
from serving.experience.store import Store
from serving.experience.tables import DIFFERS, FEEDBACK_SCHEMA

logger = logging.getLogger(__name__)

DAMAGED = ".damaged"
"""The suffix that a file gets in which nothing can be read."""


class Converter:
    """Converts segments into the files of a store.

    Args:
        store: where the files go.
        auditor: computes the decisions again.
    """

    def __init__(self, store: Store, auditor: Auditor) -> None:
        self._store, self._auditor = store, auditor

    def convert(self, path: Path, *, is_audited: bool = True) -> Manifest | None:
        """Convert a segment and delete it. Return None, and leave it, if a later release has written it.

        A segment that is empty is deleted, too; one in which nothing can be read is renamed. Both get a manifest.

        Raises:
            StoreUnavailable: the store cannot be written. The segment is as it was.
            OSError: the segment cannot be read or deleted.
        """
        if _is_of_later_release(path):
            return None
        segment = Segment.read(path)
        if segment.header.get("format", FORMAT) != FORMAT:
            return None
        manifest = Manifest(Origin.of(path, segment), segment.header, segment.lost_bytes)
        self._write_decisions(segment, manifest, is_audited=is_audited)
        reports = self._write_feedback(segment, manifest)
        self._store.write(manifest.origin.manifest, manifest.content(reports))
        if segment.records or not segment.lost_bytes:
            path.unlink(missing_ok=True)
        else:
            path.rename(path.with_suffix(DAMAGED))
        _log(path, manifest)
        return manifest

    def _write_decisions(self, segment: Segment, manifest: Manifest, *, is_audited: bool) -> None:
        origin, reader = manifest.origin, DecisionReader(segment)
        files: dict[Table, ParquetFile] = {}
        for chunk in reader:
            audit = self._auditor.audit(chunk) if is_audited else Audit.unchecked(len(chunk))
            manifest.add_chunk(chunk, audit)
            if chunk.table not in files:
                files[chunk.table] = ParquetFile(schema_of(chunk.table))
            files[chunk.table].add(decision_table(chunk, audit, origin.replica, origin.segment))
        manifest.unreadable += reader.unreadable
        for table, file in files.items():
            self._write(manifest, origin.decisions(table), file)

    def _write_feedback(self, segment: Segment, manifest: Manifest) -> int:
        """Write the reports of clients. Return their number."""
        origin, rows = manifest.origin, []
        for record in segment.records:
            if record.kind not in {DROPPED, FEEDBACK}:
                continue
            try:
                if record.kind == DROPPED:
                    manifest.add_dropped(record.content)
                else:
                    rows.append(feedback_row(record, origin.replica, origin.segment))
            except (ValueError, TypeError, KeyError, AttributeError):  # of a kind that this release does not write
                manifest.unreadable += 1
        if rows:
            file = ParquetFile(FEEDBACK_SCHEMA)
            file.add(pa.Table.from_pylist(rows, schema=FEEDBACK_SCHEMA))
            manifest.times += [row["time"] for row in rows]
            self._write(manifest, origin.feedback, file)
        return len(rows)

    def _write(self, manifest: Manifest, path: str, file: ParquetFile) -> None:
        content = file.content()
        self._store.write(path, content)
        manifest.add_file(path, content, file.rows)


def _is_of_later_release(path: Path) -> bool:
    """Return whether a file has records with another number in MAGIC."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    return start[:-1] == MAGIC[:-1] and start != MAGIC


def _log(path: Path, manifest: Manifest) -> None:
    if manifest.lost_bytes or manifest.unreadable:
        logger.warning(
            "segment %s: %d bytes were damaged, and %d records could not be read",
            *(path.name, manifest.lost_bytes, manifest.unreadable),
        )
    for number, counts in manifest.versions.items():
        if differs := counts["audit"][DIFFERS]:
            logger.warning(
                "segment %s: %d of %d actions of version %s are not those that its bundle computes",
                *(path.name, differs, counts["decisions"], number),
            )
