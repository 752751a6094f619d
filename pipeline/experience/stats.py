"""Describes what is recorded of a model: from the summary of whole episodes and the manifests, without the steps."""

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.experience.raw import read_raw
from pipeline.experience.whole_episodes import (
    SUMMARY_FILE,
    TERMINATED,
    TRUNCATED,
    UNREPORTED,
    read_current,
    read_file,
)
from serving.experience.store import Store

_BATCH_ROWS = 2**18
_COLUMNS = ["version", "start", "end", "length", "return", "done", "rewards_reported", "decisions"]


@dataclass
class VersionStats:
    """One version: its whole episodes, and the audit of all its decisions."""

    version: int
    episodes: int = 0
    terminated: int = 0
    truncated: int = 0
    unreported: int = 0
    decisions: int = 0
    """Steps of whole episodes that began with this version."""
    return_mean: float | None = None
    return_std: float | None = None
    """The standard deviation of the episodes' returns."""
    return_min: float | None = None
    return_max: float | None = None
    length_mean: float | None = None
    rewards_reported: float | None = None
    """The share of the steps whose reward was reported."""
    first_ns: int | None = None
    last_ns: int | None = None
    recorded: int = 0
    """Decisions of this version in the raw files."""
    audit: dict[str, int] = field(default_factory=dict)


@dataclass
class Stats:
    """What is recorded of a model."""

    model: str
    digest: str | None
    """Names the whole episodes; None if there has been no compaction."""
    compacted_at: str | None
    versions: list[VersionStats]
    segments: int
    new_segments: int
    """Segments that have been converted since the compaction, or were forgotten meanwhile."""
    unlisted: int
    """Files of segments whose conversion has not ended."""
    dropped_decisions: int
    dropped_feedback: int
    lost_bytes: int
    left_out: dict[str, int]
    """What the compaction left out of the whole episodes."""

    def to_json(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return asdict(self)


def stats(store: Store, model: str) -> Stats:
    """Describe what is recorded of a model. Raises ExperienceDamaged, EpisodesReplaced, StoreUnavailable."""
    raw, current = read_raw(store, model), read_current(store, model)
    versions: dict[int, VersionStats] = {}
    for manifest in raw.manifests:
        for number, counts in manifest.versions.items():
            _add_recorded(versions.setdefault(number, VersionStats(number)), counts, manifest.time)
    if current is not None:
        _add_episodes(versions, read_file(store, model, current, SUMMARY_FILE))
    return Stats(
        model=model,
        digest=current["digest"] if current else None,
        compacted_at=current["created_at"] if current else None,
        versions=[versions[number] for number in sorted(versions)],
        segments=len(raw.manifests),
        new_segments=abs(len(raw.manifests) - current["segments"]) if current else len(raw.manifests),
        unlisted=len(raw.unlisted),
        dropped_decisions=sum(each.dropped[0] for each in raw.manifests),
        dropped_feedback=sum(each.dropped[1] for each in raw.manifests),
        lost_bytes=sum(each.lost_bytes for each in raw.manifests),
        left_out=current["left_out"] if current else {},
    )


def _add_recorded(stats: VersionStats, counts: dict[str, Any], time: tuple[int, int] | None) -> None:
    stats.recorded += int(counts.get("decisions", 0))
    stats.audit = dict(Counter(stats.audit) + Counter(counts.get("audit", {})))
    if time is not None:
        stats.first_ns = min(time[0], time[0] if stats.first_ns is None else stats.first_ns)
        stats.last_ns = max(time[1], time[1] if stats.last_ns is None else stats.last_ns)


@dataclass
class _Sums:
    """Sums over episodes, from which means and deviations follow; batches are merged as Chan et al. (1979) do."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """The sum of the squared differences from the mean."""
    length: int = 0
    reported: int = 0

    def add(self, returns: NDArray[np.float64]) -> None:
        count, mean = len(returns), float(returns.mean())
        total, difference = self.count + count, mean - self.mean
        self.squares += float(((returns - mean) ** 2).sum()) + difference**2 * self.count * count / total
        self.mean += difference * count / total
        self.count = total


def _add_episodes(versions: dict[int, VersionStats], summary: bytes) -> None:
    """Add the episodes of a summary, one row group at a time."""
    file = pq.ParquetFile(pa.BufferReader(summary))
    sums: dict[int, _Sums] = {}
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=_COLUMNS):
        columns = {name: batch.column(name) for name in _COLUMNS}
        numbers = columns["version"].to_numpy()
        for number in map(int, np.unique(numbers)):
            stats = versions.setdefault(number, VersionStats(number))
            _add_batch(stats, sums.setdefault(number, _Sums()), columns, numbers == number)
    for number, each in sums.items():
        stats = versions[number]
        stats.return_mean, stats.return_std = each.mean, math.sqrt(each.squares / each.count)
        stats.length_mean = each.length / each.count
        stats.rewards_reported = each.reported / stats.decisions


def _add_batch(stats: VersionStats, sums: _Sums, columns: dict[str, pa.Array], mine: NDArray[np.bool_]) -> None:
    """Add the episodes of one version in a batch."""
    returns = columns["return"].to_numpy()[mine]
    done = Counter(columns["done"].filter(pa.array(mine)).to_pylist())
    sums.add(returns)
    sums.length += int(columns["length"].to_numpy()[mine].sum())
    sums.reported += int(columns["rewards_reported"].to_numpy()[mine].sum())
    stats.episodes += len(returns)
    stats.terminated += done[TERMINATED]
    stats.truncated += done[TRUNCATED]
    stats.unreported += done[UNREPORTED]
    stats.decisions += int(columns["decisions"].to_numpy()[mine].sum())
    stats.return_min = min(float(returns.min()), math.inf if stats.return_min is None else stats.return_min)
    stats.return_max = max(float(returns.max()), -math.inf if stats.return_max is None else stats.return_max)
    first = int(columns["start"].cast(pa.int64()).to_numpy()[mine].min())
    last = int(columns["end"].cast(pa.int64()).to_numpy()[mine].max())
    stats.first_ns = first if stats.first_ns is None else min(first, stats.first_ns)
    stats.last_ns = last if stats.last_ns is None else max(last, stats.last_ns)
