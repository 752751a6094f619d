"""Tables divided by episode into files on a local disk, so that one bucket at a time fits into memory."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_PENDING_BYTES = 32 * 2**20
_PENDING_TABLES = 1000
"""A table takes some kilobytes besides its rows."""


def episode_words(episodes: pa.Array) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the first and the second half of 16-byte hashes as numbers, which sort as the hashes do."""
    values = np.frombuffer(episodes.buffers()[1], ">u8")[2 * episodes.offset :][: 2 * len(episodes)]
    words = values.reshape(-1, 2).astype(np.uint64)
    return words[:, 0], words[:, 1]


class Buckets:
    """Rows by ranges of their episodes' hashes, in the order in which they were added.

    The hashes are evenly distributed, so the buckets have about the same size. Consecutive buckets have ascending
    hashes.

    Args:
        directory: an empty directory.
        count: the number of buckets.
    """

    def __init__(self, directory: Path, count: int) -> None:
        self._directory, self.count = directory, count
        self._pending: dict[str, list[pa.Table]] = defaultdict(list)
        self._pending_bytes = self._pending_tables = 0

    def add(self, kind: str, table: pa.Table) -> None:
        """Add rows of one kind, a name for all tables of the same schema. They have a column `episode`."""
        self._pending[kind].append(table)
        self._pending_bytes += table.nbytes
        self._pending_tables += 1
        if self._pending_bytes > _PENDING_BYTES or self._pending_tables > _PENDING_TABLES:
            self.flush()

    def flush(self) -> None:
        """Write what is in memory."""
        for kind, tables in self._pending.items():
            self._write(kind, pa.concat_tables(tables).combine_chunks())
        self._pending.clear()
        self._pending_bytes = self._pending_tables = 0

    def _write(self, kind: str, table: pa.Table) -> None:
        first, _ = episode_words(table["episode"].combine_chunks())
        buckets = (first >> np.uint64(32)) * np.uint64(self.count) >> np.uint64(32)
        order = np.argsort(buckets, kind="stable")
        table = table.take(pa.array(order))
        numbers, starts = np.unique(buckets[order], return_index=True)
        ends = [*starts[1:], len(table)]
        for number, start, end in zip(numbers, starts, ends, strict=True):
            rows = table.slice(start, end - start)
            with self._file(kind, int(number)).open("ab") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(rows)

    def take(self, kind: str, number: int) -> pa.Table | None:
        """Return the rows of a bucket and delete its file; None if it has no rows of this kind."""
        file = self._file(kind, number)
        if not file.exists():
            return None
        source = pa.BufferReader(file.read_bytes())
        tables = []
        while source.tell() < source.size():
            tables.append(pa.ipc.open_stream(source).read_all())
        file.unlink()
        return pa.concat_tables(tables).combine_chunks()

    def _file(self, kind: str, number: int) -> Path:
        return self._directory / f"{kind}-{number}.arrows"
