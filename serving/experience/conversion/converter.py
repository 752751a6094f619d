"""Converts one segment. The steps have an order that a crash at any point survives.

1. the decisions of each version, 2. the reports of clients, 3. the manifest that names these files, each written in one
step; 4. the segment is deleted. A segment that is still there is converted again, into files of the same names.
"""

import itertools
import logging
from pathlib import Path

import pyarrow as pa

from serving.experience.conversion.audit import Audit, Auditor
from serving.experience.conversion.decisions import DecisionReader, Table
from serving.experience.conversion.manifest import Manifest, Origin
from serving.experience.conversion.parquet import ParquetFile, decision_table, feedback_row, feedback_table, schema_of
from serving.experience.journal.records import FEEDBACK, FORMAT, HEADER, MAGIC
from serving.experience.journal.segment import Record, Segment
from serving.experience.store import Store
from serving.experience.tables import DIFFERS, FEEDBACK_SCHEMA

logger = logging.getLogger(__name__)

DAMAGED = ".damaged"
"""The suffix of a segment with records that could not be read. A person may still find them."""
MAX_DAMAGED = 16
"""The most such files that a journal keeps. The oldest are deleted."""


class Converter:
    """Converts segments into the files of a store.

    Args:
        store: where the files go.
        auditor: computes the decisions again.
    """

    def __init__(self, store: Store, auditor: Auditor) -> None:
        self._store, self._auditor = store, auditor
        self._swept: set[str] = set()

    def convert(self, path: Path, *, is_audited: bool = True) -> Manifest | None:
        """Convert a segment and delete it. Return None, and leave it, if a later release has written it.

        An empty segment is deleted, too. One with records that cannot be read is renamed. Both have a manifest.

        Raises:
            StoreUnavailable: the store cannot be written. The segment is as it was.
            OSError: the segment cannot be read or deleted.
        """
        content = path.read_bytes()
        segment = Segment()
        records = segment.scan(content)
        first = next(records, None)
        header = first.content if first is not None and first.kind == HEADER else {}
        if header.get("format", FORMAT) != FORMAT or _has_later_frames(content):
            return None
        reader = DecisionReader(records if first is None else itertools.chain((first,), records))
        manifest = Manifest(Origin.of(path, header), header)
        files = self._read_decisions(reader, manifest, is_audited=is_audited)
        manifest.end(reader, segment.lost_bytes)
        self._write_decisions(files, manifest)
        self._write_feedback(reader.others, manifest)
        self._store.write(manifest.origin.manifest, manifest.content())
        if manifest.unreadable or (first is None and segment.lost_bytes):
            _set_aside(path)
        else:
            path.unlink(missing_ok=True)
        _log(path, manifest)
        return manifest

    def _read_decisions(
        self, reader: DecisionReader, manifest: Manifest, *, is_audited: bool
    ) -> dict[Table, ParquetFile]:
        origin = manifest.origin
        files: dict[Table, ParquetFile] = {}
        for chunk in reader:
            audit = self._auditor.audit(chunk) if is_audited else Audit.unchecked(len(chunk))
            manifest.add_chunk(chunk, audit)
            if chunk.table not in files:
                files[chunk.table] = ParquetFile(schema_of(chunk.table))
            files[chunk.table].add(decision_table(chunk, audit, origin.replica, origin.segment))
        return files

    def _write_decisions(self, files: dict[Table, ParquetFile], manifest: Manifest) -> None:
        for table, file in files.items():
            self._write(manifest, manifest.origin.decisions(table), file)

    def _write_feedback(self, records: list[Record], manifest: Manifest) -> None:
        """Write the reports of clients."""
        origin, rows = manifest.origin, []
        for record in records:
            if record.kind != FEEDBACK:
                continue
            try:
                rows.append(feedback_row(record, origin.replica, origin.segment))
            except (ValueError, TypeError, KeyError, AttributeError):  # none that this release has written
                manifest.unreadable += 1
        table = feedback_table(rows)
        manifest.unreadable += len(rows) - len(table)
        if len(table):
            manifest.add_feedback(table.column("time").cast(pa.int64()).to_pylist())
            file = ParquetFile(FEEDBACK_SCHEMA)
            file.add(table)
            self._write(manifest, origin.feedback, file)

    def _write(self, manifest: Manifest, path: str, file: ParquetFile) -> None:
        content = file.content()
        directory = path.rpartition("/")[0]
        if directory not in self._swept:
            self._store.delete_abandoned(directory)
            self._swept.add(directory)
        self._store.write(path, content)
        manifest.add_file(path, content, file.rows)


def _has_later_frames(content: bytes) -> bool:
    """Return whether a segment has frames with another number in MAGIC."""
    return content.startswith(MAGIC[:-1]) and not content.startswith(MAGIC)


def _set_aside(path: Path) -> None:
    path.rename(path.with_suffix(DAMAGED))
    found = sorted(path.parent.glob(f"*{DAMAGED}"), key=lambda each: each.stat().st_mtime)
    for old in found[:-MAX_DAMAGED]:
        old.unlink(missing_ok=True)


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
