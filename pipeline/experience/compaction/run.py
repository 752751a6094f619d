"""Compacts the raw experience of a model into whole episodes: reads it twice, in constant memory."""

import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.experience.compaction.buckets import Buckets
from pipeline.experience.compaction.join import JoinCounts, JoinOptions, join
from pipeline.experience.compaction.publish import digest_of, generation, publish, sha256_of
from pipeline.experience.compaction.reports import Reports
from pipeline.experience.compaction.scatter import FEEDBACK, FEEDBACK_SCHEMA, FoundLayout, Scatter
from pipeline.experience.errors import ForgettingUnfinished, ScratchUnusable
from pipeline.experience.progress import StageProgress
from pipeline.experience.raw import RENEWING, Raw, RawFile, delete_older, read_raw
from pipeline.experience.whole_episodes import (
    FORMAT,
    SUMMARY_FILE,
    SUMMARY_SCHEMA,
    Layout,
    has_parts,
    part_prefix,
    stored_schema,
)
from serving.experience.store import Store

BUCKET_BYTES = 48 * 2**20
"""The size of a bucket in memory. A join needs several times as much."""


@dataclass(frozen=True)
class CompactOptions:
    """What the user decides about a compaction."""

    reward_wait_s: float = 3600.0
    default_reward: float = 0.0
    keep_days: int | None = None
    scratch: str | None = None
    """The directory for temporary files, the system's by default."""
    bucket_bytes: int = BUCKET_BYTES


@dataclass(frozen=True)
class Compaction:
    """What a compaction did."""

    content: dict[str, Any]
    """The content of current.json."""
    damaged: list[str]
    """Raw files that were left out, because they are not as their manifests say."""
    deleted: int
    """Raw files that were too old to be kept."""
    seconds: float


def compact(
    store: Store, model: str, options: CompactOptions, progress: StageProgress, now_ns: int | None = None
) -> Compaction:
    """Build the whole episodes of a model anew from its raw files, and put them in place of the earlier ones.

    Raises:
        ExperienceChanged: `forget` changed the raw files meanwhile.
        ExperienceDamaged: a manifest cannot be read.
        ForgettingUnfinished: `forget` was interrupted.
        ScratchUnusable: the temporary files cannot be written.
        StoreUnavailable: the store cannot be reached, read or written.
    """
    begun = time.monotonic()
    now_ns = time.time_ns() if now_ns is None else now_ns
    deleted = delete_older(store, model, options.keep_days, now_ns) if options.keep_days is not None else 0
    before = generation(store)
    raw = read_raw(store, model)
    if any(each.content.get(RENEWING) for each in raw.manifests):
        raise ForgettingUnfinished(store.uri)
    with _scratch(options.scratch) as directory:
        work = _Work(store, model, raw, directory, options, progress)
        content = work.build(now_ns)
        progress.stage("write whole episodes", len(content["files"]))
        for _ in publish(store, model, work.output, content, before):
            progress.advance()
    return Compaction(content, work.scatter.damaged, deleted, time.monotonic() - begun)


class _Work:
    """One compaction: its temporary files and counts."""

    def __init__(
        self, store: Store, model: str, raw: Raw, directory: Path, options: CompactOptions, progress: StageProgress
    ) -> None:
        self.model, self.raw, self.options, self.progress = model, raw, options, progress
        self.output = directory / "output"
        self.output.mkdir()
        (directory / "buckets").mkdir()
        self.buckets = Buckets(directory / "buckets", _bucket_count(store, raw, options.bucket_bytes))
        self.scatter = Scatter(store, self.buckets)
        self.counts = JoinCounts()

    def build(self, now_ns: int) -> dict[str, Any]:
        """Write the parts and the summary; return the content of current.json."""
        self.progress.stage("read raw files", len(self.raw.files))
        self.scatter.read(self.raw, self.progress)
        found = sorted(self.scatter.layouts.values(), key=lambda each: max(each.versions))
        self.progress.stage("join decisions and feedback", self.buckets.count)
        options = JoinOptions(now_ns, self.options.reward_wait_s, self.options.default_reward)
        with pq.ParquetWriter(self.output / SUMMARY_FILE, SUMMARY_SCHEMA, compression="zstd") as summary:
            for number in range(self.buckets.count):
                self._join(number, found, options, summary)
                self.progress.advance()
        return self._content(found, now_ns)

    def _join(self, number: int, found: list[FoundLayout], options: JoinOptions, summary: pq.ParquetWriter) -> None:
        events = self.buckets.take(FEEDBACK, number)
        reports = Reports(FEEDBACK_SCHEMA.empty_table() if events is None else events)
        for layout, each in enumerate(found):
            decisions = self.buckets.take(each.kind, number)
            if decisions is None:
                continue
            joined = join(decisions, reports, each.arrays, layout, options)
            self.counts += joined.counts
            if len(joined.steps):
                name = f"{part_prefix(layout)}{number:05}.parquet"
                steps = joined.steps.cast(stored_schema(joined.steps.schema))
                pq.write_table(steps, self.output / name, compression="zstd", row_group_size=2**17)
                summary.write_table(joined.summary)
        self.counts.unknown_feedback += int((~reports.known).sum())

    def _content(self, found: list[FoundLayout], now_ns: int) -> dict[str, Any]:
        files = {file.name: sha256_of(file) for file in sorted(self.output.iterdir())}
        written = [(number, each) for number, each in enumerate(found) if has_parts(files, number)]
        layouts = [Layout(number, tuple(sorted(each.versions)), each.arrays.schema) for number, each in written]
        return {
            "format": FORMAT,
            "model": self.model,
            "digest": digest_of(files),
            "created_at": datetime.fromtimestamp(now_ns / 1e9, UTC).isoformat(),
            "episodes": self.counts.episodes,
            "decisions": self.counts.decisions,
            "files": files,
            "layouts": [each.to_json() for each in layouts],
            "options": {
                "reward_wait_s": self.options.reward_wait_s,
                "default_reward": self.options.default_reward,
            },
            "left_out": self._left_out(),
            "segments": len(self.raw.manifests),
        }

    def _left_out(self) -> dict[str, int]:
        """Return what is in the raw files and not in the whole episodes."""
        return {
            "duplicates": self.counts.duplicates,
            "after_end": self.counts.after_end,
            "pending_episodes": self.counts.pending_episodes,
            "pending_decisions": self.counts.pending_decisions,
            "unknown_feedback": self.counts.unknown_feedback,
            "without_episode": self.scatter.without_episode,
            "damaged_files": len(self.scatter.damaged),
            "unconverted_files": len(self.raw.unlisted),
        }


def _bucket_count(store: Store, raw: Raw, bucket_bytes: int) -> int:
    """Return how many buckets keep each one below `bucket_bytes` in memory, from the rows and some files' row size."""
    latest = {_table_kind(file): file for file in raw.files if file.rows}
    sizes = {kind: _row_bytes(store, file) for kind, file in latest.items()}
    decision = max((size for kind, size in sizes.items() if kind != FEEDBACK), default=0.0)
    total = sum(file.rows * (decision if file.is_decisions else sizes[FEEDBACK]) for file in raw.files if file.rows)
    return max(1, math.ceil(total / bucket_bytes))


def _table_kind(file: RawFile) -> str:
    """Return the end of the name of a table of decisions, which has its version: `v3` or `v3-2`."""
    return file.path.rpartition("-v")[2] if file.is_decisions else FEEDBACK


def _row_bytes(store: Store, file: RawFile) -> float:
    table = file.read(store)
    return table.nbytes / len(table) if table is not None and len(table) else 0.0


@contextmanager
def _scratch(parent: str | None) -> Iterator[Path]:
    """Make a private temporary directory; OSErrors of its files become ScratchUnusable."""
    try:
        with tempfile.TemporaryDirectory(prefix="experience-", dir=parent) as directory:
            yield Path(directory)
    except OSError as error:
        raise ScratchUnusable(parent or tempfile.gettempdir(), error.strerror or str(error)) from error
