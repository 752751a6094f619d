"""What clients reported of the episodes of one bucket, with the later report in place of the earlier."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.experience.compaction.columns import is_digest, tensor_name
from pipeline.experience.compaction.groups import Groups, Ints
from serving.experience.tables import column_of

NONE = -1
"""Stands for no event, no length, and no time."""


@dataclass
class Reports:
    """The feedback of one bucket, the earliest first."""

    events: pa.Table
    known: NDArray[np.bool_] = field(init=False)
    """Whether each event belongs to an episode with decisions; `of` sets it."""

    def __post_init__(self) -> None:
        times = self.events["time"].cast(pa.int64()).to_numpy()
        self.events = self.events.take(pa.array(np.argsort(times, kind="stable"))).combine_chunks()
        self.known = np.zeros(len(self.events), np.bool_)

    def of(self, episodes: pa.Array) -> "EpisodeReports":
        """Return the reports of some episodes."""
        index = pc.index_in(self.events["episode"].combine_chunks(), value_set=episodes)
        mine = index.is_valid().to_numpy(zero_copy_only=False)
        self.known |= mine
        return EpisodeReports(self.events.filter(pa.array(mine)).combine_chunks(), index, len(episodes))


class EpisodeReports:
    """The feedback of numbered episodes.

    Args:
        events: the events, the earliest first.
        index: the number of each event's episode, and nulls for events that are not among these.
        episodes: the number of episodes.
    """

    def __init__(self, events: pa.Table, index: pa.Array, episodes: int) -> None:
        self._events, self._episodes = events, episodes
        self._code = index.drop_null().to_numpy().astype(np.int64)

    @property
    def last_time(self) -> Ints:
        """The time of each episode's last event, in ns since 1970, or NONE."""
        last = np.full(self._episodes, NONE, np.int64)
        # Of repeated indices the last value stays, and the events are sorted by time.
        last[self._code] = self._events["time"].cast(pa.int64()).to_numpy()
        return last

    def last(self, column: str) -> pa.Array:
        """Return the last value of a column that is not null, for each episode; null if there is none."""
        event = self._last_event(column)
        return self._events[column].combine_chunks().take(pa.array(event, mask=event == NONE))

    def rewards(self, groups: Groups) -> tuple[Ints, NDArray[np.float64]]:
        """Return rows and their reported rewards. A row can occur more than once: the last one counts."""
        steps, values = (self._events[name].combine_chunks() for name in ("steps", "rewards"))
        code = np.repeat(self._code, pc.list_value_length(steps).to_numpy())
        row, found = groups.find(code, steps.flatten().to_numpy())
        return row[found], values.flatten().to_numpy()[found]

    def final_observation(self, fields: list[pa.Field]) -> tuple[list[pa.Array], Ints]:
        """Return the final observations as one column per field, and the index of each episode's in them, or NONE.

        An observation that is not reported whole, or not in the arrays' sizes, is left out.
        """
        event = self._last_event("final_observation")
        episodes = np.flatnonzero(event != NONE)
        if not len(episodes) or not fields or any(is_digest(each) for each in fields):
            return [], np.full(self._episodes, NONE, np.int64)
        maps = self._events["final_observation"].combine_chunks().take(pa.array(event[episodes]))
        leaves = [pc.map_lookup(maps, pa.scalar(tensor_name(each), pa.string()), "first") for each in fields]
        whole = np.ones(len(episodes), np.bool_)
        for each, leaf in zip(fields, leaves, strict=True):
            lengths = pc.fill_null(pc.binary_length(leaf), NONE).to_numpy()
            whole &= lengths == _row_bytes(each)
        index = np.full(self._episodes, NONE, np.int64)
        index[episodes[whole]] = np.arange(whole.sum())
        kept = [leaf.filter(pa.array(whole)) for leaf in leaves]
        return [_column(leaf, each) for leaf, each in zip(kept, fields, strict=True)], index

    def _last_event(self, column: str) -> Ints:
        """Return the last event of each episode whose value in a column is not null, or NONE."""
        given = np.flatnonzero(self._events[column].combine_chunks().is_valid().to_numpy(zero_copy_only=False))
        event = np.full(self._episodes, NONE, np.int64)
        event[self._code[given]] = given
        return event


def _numbers(field: pa.Field) -> tuple[np.dtype[np.generic], int | None]:
    """Return the dtype of a column, and how many numbers a row has; None if it is not a list."""
    kind = field.type
    if pa.types.is_fixed_size_list(kind):
        return np.dtype(kind.value_type.to_pandas_dtype()), kind.list_size
    return np.dtype(kind.to_pandas_dtype()), None


def _row_bytes(field: pa.Field) -> int:
    dtype, size = _numbers(field)
    return int(dtype.itemsize * (1 if size is None else size))


def _column(values: pa.Array, field: pa.Field) -> pa.Array:
    """Return a column of little-endian bytes as a column of numbers."""
    dtype, size = _numbers(field)
    numbers = np.frombuffer(b"".join(values.to_pylist()), dtype)
    return column_of(numbers if size is None else numbers.reshape(len(values), size)).cast(field.type)
