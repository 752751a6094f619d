"""Removes episodes from everything below an experience URI.

Each file is replaced by one without the episodes' rows. First a manifest is marked, then its files are replaced, then
it is written anew with their digests: a command that was interrupted in between is repaired by running it again. The
whole episodes get a new digest, and the files of the old one are deleted.
"""

import contextlib
import hashlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.experience.compaction.publish import (
    delete_others,
    digest_of,
    generation,
    publish,
    renew_generation,
    sha256_of,
)
from pipeline.experience.errors import ExperienceDamaged
from pipeline.experience.progress import StageProgress
from pipeline.experience.raw import DECISIONS, RENEWING, Manifest, Raw, read_raw
from pipeline.experience.whole_episodes import (
    SUMMARY_FILE,
    has_parts,
    read_current,
    read_file,
)
from serving.experience.store import Store

TEMPORARY = ".writing-"
"""How the names of the temporary files of `Store.write` begin."""
_ABANDONED_S = 3600.0
"""A file that no manifest lists, or a temporary one, is of an interrupted conversion when it is older than this."""


@dataclass
class Forgotten:
    """How many rows were removed, and what could not be reached."""

    decisions: int = 0
    feedback: int = 0
    steps: int = 0
    """Steps of whole episodes."""
    episodes: int = 0
    """Whole episodes."""
    unconverted: int = 0
    """Files of segments whose conversion has not ended."""

    def count(self, path: str, rows: int) -> None:
        """Count rows that were removed from a raw file."""
        if path.startswith(DECISIONS + "/"):
            self.decisions += rows
        else:
            self.feedback += rows


class _Filter:
    """Removes the rows of some episodes from Parquet files."""

    def __init__(self, store: Store, hashes: Sequence[bytes]) -> None:
        self.store = store
        self._raw = pa.array(hashes, pa.binary(16))
        self._hex = pa.array([each.hex() for each in hashes], pa.string())

    def of(self, table: pa.Table) -> pa.Table:
        """Return a table without the rows; the same object if it has none of them."""
        column, values = ("episode", self._raw) if "episode" in table.column_names else ("eps_id", self._hex)
        found = pc.is_in(table[column], value_set=values)
        return table.filter(pc.invert(found)) if pc.any(found).as_py() else table

    def read(self, path: str) -> tuple[pa.Table, bytes] | None:
        """Return a file's table and bytes; None if it is gone. Raises ExperienceDamaged."""
        try:
            content = self.store.read(path)
            return pq.ParquetFile(pa.BufferReader(content)).read(), content
        except FileNotFoundError:
            return None
        except pa.ArrowInvalid as error:
            raise ExperienceDamaged(path, f"it cannot be read ({error}), so delete it yourself") from error


def forget(store: Store, models: Sequence[str], hashes: Sequence[bytes], progress: StageProgress) -> Forgotten:
    """Remove episodes, given their hashes, from the raw files and the whole episodes of models.

    Raises:
        ExperienceDamaged: a file cannot be read. What was done until then stays done.
        StoreUnavailable: the store cannot be reached, read or written.
    """
    done, remover = Forgotten(), _Filter(store, hashes)
    renew_generation(store)
    for model in models:
        raw = read_raw(store, model)
        progress.stage(f"raw files of {model}", len(raw.manifests) + len(raw.unlisted))
        for manifest in raw.manifests:
            _forget_segment(remover, manifest, done)
            progress.advance()
        _forget_unlisted(remover, raw, done)
    renew_generation(store)
    for model in models:
        _forget_whole(remover, model, done, progress)
    if store.local is not None:
        _delete_temporary(store.local)
    return done


def _forget_segment(remover: _Filter, manifest: Manifest, done: Forgotten) -> None:
    """Replace the files of a segment that have rows to remove, and its manifest."""
    read = {file.path: remover.read(file.path) for file in manifest.files}
    found = {path: each for path, each in read.items() if each is not None}
    if not manifest.content.get(RENEWING) and all(remover.of(table) is table for table, _ in found.values()):
        return
    store = remover.store
    store.write(manifest.path, json.dumps({**manifest.content, RENEWING: True}, indent=1).encode())
    tables, files = {}, dict(manifest.content["files"])
    for path, (table, content) in found.items():
        tables[path] = remaining = remover.of(table)
        is_sound = bool(manifest.content.get(RENEWING)) or _sha256(content) == files[path]["sha256"]
        written = _replaced(store, path, remaining) if remaining is not table else content
        done.count(path, len(table) - len(remaining))
        if is_sound:  # a damaged file keeps the digest that shows it
            files[path] = {"sha256": _sha256(written), "bytes": len(written), "rows": len(remaining)}
    store.write(manifest.path, json.dumps(_renewed(manifest.content, tables, files), indent=1).encode())


def _replaced(store: Store, path: str, table: pa.Table) -> bytes:
    """Replace a file; return the bytes of the new one."""
    content = _parquet_bytes(table)
    store.write(path, content)
    return content


def _renewed(content: dict[str, Any], tables: dict[str, pa.Table], files: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with the counts and digests of its files as they are now."""
    decisions = [table for path, table in tables.items() if path.startswith(DECISIONS + "/")]
    audits: dict[str, Counter[str]] = {version: Counter() for version in content["versions"]}
    for table in decisions:
        for group in table.group_by(["version", "audit"]).aggregate([([], "count_all")]).to_pylist():
            audits.setdefault(str(group["version"]), Counter())[group["audit"]] += group["count_all"]
    ranges = [pc.min_max(table["time"].cast(pa.int64())).as_py() for table in tables.values() if len(table)]
    return {
        **{key: value for key, value in content.items() if key != RENEWING},
        "decisions": sum(map(len, decisions)),
        "feedback": sum(map(len, tables.values())) - sum(map(len, decisions)),
        "time": [min(each["min"] for each in ranges), max(each["max"] for each in ranges)] if ranges else None,
        "audit": sum(audits.values(), Counter()),
        "versions": {
            version: {
                **content["versions"].get(version, {}),
                "decisions": sum(counts.values()),
                "audit": counts,
            }
            for version, counts in audits.items()
        },
        "files": files,
    }


def _forget_unlisted(remover: _Filter, raw: Raw, done: Forgotten) -> None:
    """Clean files that an interrupted conversion left; those of one that goes on are counted."""
    for path in raw.unlisted:
        info = remover.store.filesystem.get_file_info(path)
        if info.mtime_ns and time.time_ns() - info.mtime_ns < _ABANDONED_S * 1e9:
            done.unconverted += 1
        elif (read := remover.read(path)) and (table := remover.of(read[0])) is not read[0]:
            _replaced(remover.store, path, table)
            done.count(path, len(read[0]) - len(table))


def _forget_whole(remover: _Filter, model: str, done: Forgotten, progress: StageProgress) -> None:
    """Put whole episodes without the forgotten ones in place of those that are there."""
    store, content = remover.store, read_current(remover.store, model)
    if content is None:
        delete_others(store, model, None)
        return
    progress.stage(f"whole episodes of {model}", len(content["files"]))
    with tempfile.TemporaryDirectory(prefix="experience-") as directory:
        steps, episodes = done.steps, done.episodes
        for name in content["files"]:
            _forget_file(remover, read_file(store, model, content, name), Path(directory, name), done)
            progress.advance()
        if done.steps > steps or done.episodes > episodes:
            content |= {
                "decisions": content["decisions"] - (done.steps - steps),
                "episodes": content["episodes"] - (done.episodes - episodes),
            }
            content |= _files(content, Path(directory))
            for _ in publish(store, model, Path(directory), content, generation(store)):
                pass
    delete_others(store, model, content["digest"])


def _forget_file(remover: _Filter, content: bytes, target: Path, done: Forgotten) -> None:
    """Write a file of whole episodes without the rows to a local file; a part without rows is left out."""
    table = pq.ParquetFile(pa.BufferReader(content)).read()
    remaining = remover.of(table)
    removed = len(table) - len(remaining)
    if target.name == SUMMARY_FILE:
        done.episodes += removed
    else:
        done.steps += removed
    if len(remaining) or target.name == SUMMARY_FILE:
        target.write_bytes(_parquet_bytes(remaining) if removed else content)


def _files(content: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return the keys of current.json that follow from the files in a directory."""
    files = {file.name: sha256_of(file) for file in sorted(directory.iterdir())}
    layouts = [each for each in content["layouts"] if has_parts(files, each["number"])]
    return {"digest": digest_of(files), "files": files, "layouts": layouts}


def _delete_temporary(root: Path) -> None:
    """Delete the temporary files that writers left when they were killed."""
    for file in root.rglob(f"{TEMPORARY}*"):
        with contextlib.suppress(FileNotFoundError):
            if file.is_file() and time.time() - file.stat().st_mtime > _ABANDONED_S:
                file.unlink()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=2**17)
    return bytes(sink.getvalue())
