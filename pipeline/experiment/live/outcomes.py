"""What became of the episodes of an experiment, from the raw tables that servers record.

Each manifest is read once, so a look costs what has been recorded since the last one. A new process reads all that was
recorded since the experiment began.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.experience.errors import ExperienceDamaged
from pipeline.experience.raw import MANIFESTS, RENEWING, Manifest, RawFile, in_order, read_manifest
from serving.experience.store import Store
from serving.experience.tables import model_directory

_DECISION = ["time", "episode", "step", "version", "previous_reward"]
_FEEDBACK = ["time", "episode", "steps", "rewards", "return", "done"]
_NS = 10**9
_DAY = timedelta(days=1)


@dataclass(slots=True)
class Report:
    """One event that a client reported of an episode: its return, its end, or both."""

    time_ns: int
    returned: float | None
    is_end: bool


@dataclass(slots=True)
class Outcome:
    """What is known of one episode.

    Attributes:
        first_ns: The time of its first decision, in ns since 1970; None while only reports of it were read.
        version: The version that made it.
        reports: What its client reported, in any order.
        rewards: Its rewards by step, and when they were reported: arrays of (step, reward, time_ns).
    """

    first_ns: int | None = None
    version: int = 0
    reports: list[Report] = field(default_factory=list)
    rewards: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = field(default_factory=list)

    @property
    def needs_rewards(self) -> bool:
        """Whether its return may have to be computed from its rewards: they take most of the memory."""
        return not self.reports or any(each.returned is None for each in self.reports)

    def returned(self, deadline_ns: int) -> float | None:
        """Return the return that was reported by a time, None if neither it nor the end of the episode was.

        Of several reports the last one counts. Without a reported return, it is the sum of the reported rewards.
        """
        told = sorted((each for each in self.reports if each.time_ns <= deadline_ns), key=lambda each: each.time_ns)
        returns = [each.returned for each in told if each.returned is not None]
        if returns:
            return returns[-1]
        return self._sum(deadline_ns) if any(each.is_end for each in told) else None

    def _sum(self, deadline_ns: int) -> float:
        if not self.rewards:
            return 0.0
        step, reward, time = (np.concatenate(column) for column in zip(*self.rewards, strict=True))
        order = np.argsort(time, kind="stable")
        order = order[time[order] <= deadline_ns]
        by_step = dict(zip(step[order].tolist(), reward[order].tolist(), strict=True))  # the later value stays
        return float(sum(by_step.values()))


class Outcomes:
    """Reads what servers recorded since a time, and keeps the outcome of each episode by its hash.

    Args:
        store: The store of experience.
        model: The registered model.
        since_s: Decisions before this time, in seconds since 1970, are not read.
    """

    def __init__(self, store: Store, model: str, since_s: float) -> None:
        self.episodes: dict[bytes, Outcome] = {}
        self.damaged: list[str] = []
        """Files that are gone or not what they were at the last call; they are read again at the next one."""
        self._store, self._since_ns = store, int(since_s * _NS)
        self._directory = f"{MANIFESTS}/{model_directory(model)}"
        self._read: set[str] = set()

    def update(self) -> None:
        """Read what was recorded since the last call. Raises StoreUnavailable."""
        self.damaged = []
        new = [path for day in self._days() for path in self._store.files(f"{self._directory}/{day}", ".json")]
        unread = [path for path in new if path not in self._read]
        for manifest in in_order(self._manifest, unread):
            if manifest is not None and not manifest.content.get(RENEWING):
                self._add(manifest)

    def _manifest(self, path: str) -> Manifest | None:
        try:
            return read_manifest(self._store, path)
        except ExperienceDamaged:
            self.damaged.append(path)
            return None

    def _add(self, manifest: Manifest) -> None:
        """Read the files of a manifest, all or none: what is damaged may be in order at the next call."""
        tables = []
        if manifest.time is not None and manifest.time[1] >= self._since_ns:
            for file in manifest.files:
                content = file.content(self._store)
                if content is None:
                    self.damaged.append(file.path)
                    return
                tables.append((file, content))
        self._read.add(manifest.path)
        for file, content in tables:
            self._add_file(file, content)

    def _add_file(self, file: RawFile, content: bytes) -> None:
        columns = _DECISION if file.is_decisions else _FEEDBACK
        table = pq.ParquetFile(pa.BufferReader(content)).read(columns=columns)
        table = table.set_column(0, "time", table["time"].cast(pa.int64()))
        if file.is_decisions:
            self._add_decisions(table.filter(table["episode"].is_valid()))
        else:
            self._add_feedback(table)

    def _add_decisions(self, table: pa.Table) -> None:
        table = table.filter(pa.compute.greater_equal(table["time"], self._since_ns)).sort_by("time")
        first = table.group_by("episode", use_threads=False).aggregate([("time", "first"), ("version", "first")])
        for row in first.to_pylist():
            outcome = self._of(row["episode"])
            if outcome.first_ns is None or row["time_first"] < outcome.first_ns:
                outcome.first_ns, outcome.version = row["time_first"], row["version_first"]
        given = table.filter(pa.compute.and_(table["previous_reward"].is_valid(), table["step"].is_valid()))
        self._add_rewards(given["episode"], given["step"], given["previous_reward"], given["time"], shift=1)

    def _add_feedback(self, table: pa.Table) -> None:
        for row in table.select(["time", "episode", "return", "done"]).to_pylist():
            if row["return"] is not None or row["done"] is not None:
                outcome = self._of(row["episode"])
                outcome.reports.append(Report(row["time"], row["return"], row["done"] is not None))
                if not outcome.needs_rewards:
                    outcome.rewards.clear()
        parents = pa.compute.list_parent_indices(table["steps"].combine_chunks())
        episodes, times = (table[name].combine_chunks().take(parents) for name in ("episode", "time"))
        self._add_rewards(episodes, _flat(table["steps"]), _flat(table["rewards"]), times)

    def _add_rewards(self, episodes: Any, steps: Any, rewards: Any, times: Any, shift: int = 0) -> None:
        """Keep rewards by episode; `shift` is how many steps before the given one they followed."""
        if not len(episodes):
            return
        encoded = (episodes.combine_chunks() if isinstance(episodes, pa.ChunkedArray) else episodes).dictionary_encode()
        code = encoded.indices.to_numpy()
        order = np.argsort(code, kind="stable")
        ends = np.cumsum(np.bincount(code, minlength=len(encoded.dictionary)))[:-1]
        parts = [np.split(each, ends) for each in (np.asarray(steps)[order] - shift, np.asarray(rewards)[order])]
        times_of = np.split(np.asarray(times)[order], ends)
        for name, step, reward, time in zip(encoded.dictionary.to_pylist(), *parts, times_of, strict=True):
            outcome = self._of(name)
            if outcome.needs_rewards:
                outcome.rewards.append((step, reward, time))

    def _of(self, episode: bytes) -> Outcome:
        return self.episodes.setdefault(episode, Outcome())

    def _days(self) -> Iterator[str]:
        """Yield the days whose directories can hold new segments. A segment lies in that of its creation."""
        day = datetime.fromtimestamp(self._since_ns / _NS, UTC).date() - _DAY
        while day <= datetime.now(UTC).date() + _DAY:
            yield day.isoformat()
            day += _DAY


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().flatten()
