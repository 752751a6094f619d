"""Reads the decisions of a segment as arrays, many records at a time.

All records of one version with the same flags, protocol and number of rows have the same layout. Their payloads, one
after the other, are an array of that layout, which NumPy reads at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.experience.episodes import EPISODE_BYTES
from serving.experience.journal.records import (
    ARM_FLAGS,
    DECISIONS,
    DECISIONS_HEAD,
    DIGEST_BYTES,
    DIGESTS,
    EXPERIMENT,
    EXPLORED,
    OF_CHALLENGER,
    OF_CHAMPION,
    OMITTED,
    REWARDS,
    ROW_SEEDS,
    SEEDED,
    VERSION,
    VersionSpec,
)
from serving.experience.journal.segment import Record
from serving.experience.tables import INPUT, OUTPUT

CHUNK_ROWS = 65_536
"""The number of decisions after which those read so far are handed on."""
CHUNK_BYTES = 16 << 20
"""The number of bytes after which they are."""

NO_NOISE = -1
"""Stands for the row of the noise of a greedy action."""
NO_MEMBERSHIP = -1
"""Stands for the membership of a request that was not part of an experiment."""

# What all records of one layout have in common follows the first byte: flags, protocol, version and number of rows.
_COMMON = slice(1, 12)
_IN_EXPERIMENT = OF_CHAMPION | OF_CHALLENGER


@dataclass(frozen=True, eq=False)
class Table:
    """A version whose decisions in the segment have the same columns."""

    number: int
    """The place of the table among those of the same version number in the segment, from 1."""
    version: VersionSpec
    flags: int
    """DIGESTS or OMITTED if the observations are recorded so, else 0."""


class Membership(NamedTuple):
    """The arm of an experiment that the records of one layout belong to."""

    experiment: str
    arm: str
    starts_ns: NDArray[np.int64]
    """When each of the experiment's shares begins, in ns since 1970, ascending."""
    shares: NDArray[np.float64]

    def share_at(self, time_ns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the challenger's share at each time, NaN before the first."""
        index = np.searchsorted(self.starts_ns, time_ns, side="right")
        return np.concatenate([[np.nan], self.shares])[index]


@dataclass(frozen=True)
class Chunk:
    """Consecutive decisions of one table, in the order in which they were recorded."""

    table: Table
    columns: dict[str, NDArray[Any]]
    """`[rows, ...]` by name: time, episode, step, protocol, explored, seed, noise_row, previous_reward, offset, row,
    and the tensors with the prefixes INPUT and OUTPUT. `noise_row` is NO_NOISE without noise. `membership` is the index
    of one of `memberships`, or NO_MEMBERSHIP, and `share` the challenger's share, NaN without a membership."""
    memberships: Sequence[Membership] = ()

    def __len__(self) -> int:
        return len(self.columns["time"])

    def tensors(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the tensors with a prefix by their names without it."""
        return {name.removeprefix(prefix): values for name, values in self.columns.items() if name.startswith(prefix)}


@dataclass(eq=False)
class _Layout:
    """The records of one layout that were read and not yet handed on."""

    flags: int
    protocol: int
    rows: int
    dtype: np.dtype[Any]
    membership: tuple[int, Membership] | None = None
    payloads: list[bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def take(self) -> dict[str, NDArray[Any]]:
        """Return the columns of the records, and forget the records."""
        read = np.frombuffer(b"".join(self.payloads), self.dtype)
        size = len(read) * self.rows
        row = np.tile(np.arange(self.rows, dtype=np.int32), len(read))
        columns = {
            "time": np.repeat(read["_time"], self.rows),
            "protocol": np.full(size, self.protocol, np.int32),
            "explored": np.full(size, bool(self.flags & EXPLORED)),
            "seed": np.repeat(read["_seed"], self.rows),
            "noise_row": row if self.flags & SEEDED else np.full(size, NO_NOISE, np.int32),
            "previous_reward": np.full(size, np.nan),
            "offset": np.repeat(np.array(self.offsets, np.int64), self.rows),
            "row": row,
            **self._membership(np.repeat(read["_time"], self.rows)),
        }
        if self.flags & ROW_SEEDS:
            columns["noise_row"] = np.zeros(size, np.int32)
        columns |= {name: _per_row(read[name]) for name in read.dtype.names or () if not name.startswith("_")}
        self.payloads, self.offsets = [], []
        return columns

    def _membership(self, time_ns: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        if self.membership is None:
            return {"membership": np.full(len(time_ns), NO_MEMBERSHIP), "share": np.full(len(time_ns), np.nan)}
        number, membership = self.membership
        return {"membership": np.full(len(time_ns), number), "share": membership.share_at(time_ns)}


@dataclass(eq=False)
class _Pending:
    """What was read of a table and not yet handed on."""

    table: Table
    memberships: Sequence[Membership]
    """Those of the whole segment so far."""
    layouts: list[_Layout] = field(default_factory=list)
    rows: int = 0
    size: int = 0

    def take(self) -> Chunk:
        """Return it in the order of the segment."""
        parts = [each.take() for each in self.layouts if each.payloads]
        self.rows = self.size = 0
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if len(parts) > 1:
            order = np.argsort(columns["offset"], kind="stable")
            columns = {name: values[order] for name, values in columns.items()}
        return Chunk(self.table, columns, self.memberships)


class DecisionReader:
    """Yields the decisions of a segment in chunks, each of one table.

    Args:
        records: the records of the segment. They are read once, and not kept.
        chunk_rows: the number of decisions of a table after which a chunk is complete.
    """

    def __init__(self, records: Iterable[Record], chunk_rows: int = CHUNK_ROWS) -> None:
        self._records, self._chunk_rows = records, chunk_rows
        self.others: list[Record] = []
        """The records so far of other kinds."""
        self.unreadable = 0
        """The number of records so far whose version is unknown, or which do not fit its tensors."""
        self.versions: dict[int, VersionSpec] = {}
        """The versions so far by their numbers."""
        self._memberships: list[Membership] = []
        self._arms: dict[int, tuple[int, Membership]] = {}
        """The memberships of the current experiment by their flag, with their indices."""
        self._tables: dict[Table, _Pending] = {}
        self._layouts: dict[bytes, tuple[_Pending, _Layout]] = {}

    def __iter__(self) -> Iterator[Chunk]:
        for record in self._records:
            if record.kind == DECISIONS:
                pending = self._add(record.offset, record.payload)
                if pending and (pending.rows >= self._chunk_rows or pending.size >= CHUNK_BYTES):
                    yield pending.take()
                continue
            self.others.append(record)
            if record.kind == VERSION:
                self._define(record)
            elif record.kind == EXPERIMENT:
                self._begin_experiment(record)
        yield from (pending.take() for pending in self._tables.values() if pending.rows)

    def _define(self, record: Record) -> None:
        """Read a VERSION record, which replaces an earlier one of the same version."""
        try:
            version = VersionSpec.from_json(record.content)
        except (ValueError, TypeError, KeyError):
            self.unreadable += 1
            return
        if self.versions.get(version.version) != version:
            self.versions[version.version] = version
            self._layouts = {
                key: each for key, each in self._layouts.items() if each[0].table.version.version != version.version
            }

    def _begin_experiment(self, record: Record) -> None:
        """Read an EXPERIMENT record, to which the records after it refer."""
        try:
            content = record.content
            steps = [(float(start), float(share)) for start, share in content["shares"]]
            starts = np.array([start * 1e9 for start, _ in steps]).astype(np.int64)
            shares = np.array([share for _, share in steps])
            name = str(content["id"])
        except (ValueError, TypeError, KeyError):
            self.unreadable += 1
            return
        found = [Membership(name, arm, starts, shares) for arm in ARM_FLAGS]
        self._arms = dict(zip(ARM_FLAGS.values(), enumerate(found, len(self._memberships)), strict=True))
        self._memberships += found
        self._layouts = {key: each for key, each in self._layouts.items() if not each[1].flags & _IN_EXPERIMENT}

    def _add(self, offset: int, payload: bytes) -> _Pending | None:
        """Add a record to those of its layout. Return its table, None if it cannot be read."""
        key = payload[_COMMON]
        found = self._layouts.get(key) or self._new_layout(payload)
        if found is not None:
            self._layouts[key] = found
        if found is None or len(payload) != found[1].dtype.itemsize:
            self.unreadable += 1
            return None
        pending, layout = found
        layout.payloads.append(payload)
        layout.offsets.append(offset)
        pending.rows += layout.rows
        pending.size += len(payload)
        return pending

    def _new_layout(self, payload: bytes) -> tuple[_Pending, _Layout] | None:
        if len(payload) < DECISIONS_HEAD.size:
            return None
        _, flags, protocol, number, rows, _, _ = DECISIONS_HEAD.unpack_from(payload)
        version = self.versions.get(number)
        if version is None or not 0 < rows <= len(payload):
            return None
        pending = self._table(version, flags & (DIGESTS | OMITTED))
        layout = _Layout(
            flags, protocol, rows, record_dtype(version, flags, rows), self._arms.get(flags & _IN_EXPERIMENT)
        )
        pending.layouts.append(layout)
        return pending, layout

    def _table(self, version: VersionSpec, flags: int) -> _Pending:
        same = [table for table in self._tables if table.version.version == version.version]
        table = next((each for each in same if (each.version, each.flags) == (version, flags)), None)
        table = table or Table(len(same) + 1, version, flags)
        return self._tables.setdefault(table, _Pending(table, self._memberships))


def record_dtype(version: VersionSpec, flags: int, rows: int) -> np.dtype[Any]:
    """Return the layout of a record of decisions. The names of fields that hold one value per record begin with "_"."""
    fields: list[Any] = [("_kind", "u1"), ("_flags", "u1"), ("_protocol", "<u2"), ("_version", "<u4"), ("_rows", "<u4")]
    fields += [("_time", "<i8"), ("_seed", "<u8"), ("episode", "u1", (rows, EPISODE_BYTES)), ("step", "<i8", (rows,))]
    if flags & REWARDS:
        fields.append(("previous_reward", "<f8", (rows,)))
    if flags & ROW_SEEDS:
        fields.append(("seed", "<u8", (rows,)))
    for spec in () if flags & OMITTED else version.inputs:
        dtype, shape = ("u1", (DIGEST_BYTES,)) if flags & DIGESTS else (spec.dtype, spec.shape)
        fields.append((INPUT + spec.name, dtype, (rows, *shape)))
    fields += [(OUTPUT + spec.name, spec.dtype, (rows, *spec.shape)) for spec in version.outputs]
    return np.dtype(fields)


def _per_row(values: NDArray[Any]) -> NDArray[Any]:
    """Return a field `[records, rows, *shape]` as `[records * rows, *shape]`, aligned."""
    return np.ascontiguousarray(values).reshape(-1, *values.shape[2:])
