"""The first pass: reads the raw files once, and divides their rows into buckets by episode."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.experience.compaction.buckets import Buckets
from pipeline.experience.compaction.columns import Arrays
from pipeline.experience.progress import StageProgress
from pipeline.experience.raw import Raw, RawFile, in_order, table_of
from serving.experience import tables
from serving.experience.store import Store

FEEDBACK = "feedback"
_FEEDBACK = ("time", "episode", "steps", "rewards", "return", "length", "done", "final_observation")
FEEDBACK_SCHEMA = pa.schema([tables.FEEDBACK_SCHEMA.field(name) for name in _FEEDBACK])
_DECISION = (
    "time",
    "episode",
    "step",
    "version",
    "explored",
    "previous_reward",
    "segment",
    "offset",
    "row",
    "action_logp",
    "action_dist_inputs",
    *(field.name for field in tables.EXPERIMENT_FIELDS),
)


@dataclass
class FoundLayout:
    """The arrays that some versions have in common, as the first pass finds them."""

    kind: str
    """The kind of its rows in the buckets."""
    arrays: Arrays
    versions: set[int] = field(default_factory=set)


@dataclass
class Scatter:
    """Reads raw files into buckets, and counts what it finds."""

    store: Store
    buckets: Buckets
    layouts: dict[object, FoundLayout] = field(default_factory=dict)
    without_episode: int = 0
    """Decisions whose request named no episode."""
    damaged: list[str] = field(default_factory=list)
    """Files that are gone or do not have the digest of their manifest; they are left out."""
    _replicas: dict[str, int] = field(default_factory=dict)

    def read(self, raw: Raw, progress: StageProgress) -> None:
        """Read all files of a model. Raises StoreUnavailable, and OSError if the buckets cannot be written."""
        # The threads hold compressed files: a table in memory is many times as large.
        for file, content in in_order(self._load, raw.files):
            table = table_of(content)
            if table is None:
                self.damaged.append(file.path)
            elif file.is_decisions:
                self._decisions(table)
            else:
                self._feedback(table)
            progress.advance()
        self.buckets.flush()

    def _load(self, file: RawFile) -> tuple[RawFile, bytes | None]:
        return file, file.content(self.store)

    def _feedback(self, table: pa.Table) -> None:
        if len(table):
            self.buckets.add(FEEDBACK, table.select(_FEEDBACK).replace_schema_metadata())

    def _decisions(self, table: pa.Table) -> None:
        self.without_episode += table["episode"].null_count
        table = table.filter(table["episode"].is_valid())
        if not len(table):
            return
        arrays = Arrays.of(table.schema)
        layout = self.layouts.setdefault(arrays.key, FoundLayout(f"decisions-{len(self.layouts)}", arrays))
        layout.versions |= set(pc.unique(table["version"]).to_pylist())
        table = tables.with_experiments(table)
        columns = {name: table[name] for name in _DECISION}
        columns["source"] = self._sources(table["replica"])
        columns |= {each.name: table[name] for each, name in zip(arrays.fields, arrays.sources, strict=True)}
        self.buckets.add(layout.kind, pa.table(columns))

    def _sources(self, replicas: pa.ChunkedArray) -> pa.Array:
        """Return a number for each replica, the same in all files."""
        encoded = replicas.combine_chunks().dictionary_encode()
        numbers = [self._replicas.setdefault(name, len(self._replicas)) for name in encoded.dictionary.to_pylist()]
        return pa.array(np.asarray(numbers, np.int32)[encoded.indices.to_numpy()])
