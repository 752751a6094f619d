"""Selects the newest recorded decisions of the versions that are served, and reads them in batches."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.experience.errors import RawDamaged
from pipeline.experience.raw import Manifest, Raw, RawFile
from serving.experience.journal.records import VersionSpec
from serving.experience.store import Store
from serving.experience.tables import DIGEST_KEY, INPUT, OUTPUT, tensor_of, version_spec
from serving.policy.tensors import Tensors

SERVED_NOW_S = 600.0
"""A version is served now if it decided within this time before the newest decision."""

BATCH_ROWS = 4096
BATCH_BYTES = 4 << 20
"""The most decisions, and bytes of their observations, that are computed at once, as by the converter's audit."""

_VERSION = re.compile(r"-v(\d+)(-\d+)?\.parquet$")


@dataclass(frozen=True)
class Served:
    """Some decisions of one version, `[rows, ...]` each."""

    spec: VersionSpec
    inputs: Tensors
    """Observations and states, by the names of the graph's inputs."""
    actions: Tensors
    """The actions that were served."""
    explored: NDArray[np.bool_]
    """Whether the action was sampled."""
    distribution: NDArray[np.float32] | None
    """The inputs of the action's distribution as the converter computed them, NaN where they are unknown; None if all
    are."""
    largest_request: int
    """The most observations in one request among these."""

    def __len__(self) -> int:
        return len(self.explored)


@dataclass(frozen=True)
class Selection:
    """The decision files to read, the newest first, and how many decisions of each."""

    files: Sequence[tuple[RawFile, int]]
    versions: tuple[int, ...]
    """The versions that are served now, without the challenger."""

    @property
    def decisions(self) -> int:
        """How many decisions are selected."""
        return sum(rows for _, rows in self.files)


def select(raw: Raw, challenger: int, decisions: int) -> Selection:
    """Select the newest decisions of the versions that are served now. Nothing but the manifests is needed for that."""
    # Of a segment with reports only, the time says nothing about decisions.
    dated = [(each.time[1], each) for each in raw.manifests if each.time is not None and each.versions]
    dated.sort(key=lambda pair: -pair[0])
    versions = _served_now(dated) - {challenger}
    files, remaining = [], decisions
    for _, manifest in dated:
        for file in sorted(manifest.files, key=lambda each: each.path):
            found = _VERSION.search(file.path)
            if not (file.is_decisions and found and int(found[1]) in versions and file.rows and remaining):
                continue
            files.append((file, min(file.rows, remaining)))
            remaining -= files[-1][1]
    return Selection(files, tuple(sorted(versions)))


def _served_now(dated: Sequence[tuple[int, Manifest]]) -> set[int]:
    return {
        version
        for time, manifest in dated
        if time >= dated[0][0] - SERVED_NOW_S * 1e9
        for version, counts in manifest.versions.items()
        if counts.get("decisions")
    }


def has_observations(schema: pa.Schema) -> bool:
    """Return whether a table of decisions has the observations themselves."""
    inputs = [field for field in schema if field.name.startswith(INPUT)]
    return bool(inputs) and not any(DIGEST_KEY in (field.metadata or {}) for field in inputs)


def read(store: Store, file: RawFile, rows: int) -> pa.Table:
    """Return the last rows of a file. Raises RawDamaged, StoreUnavailable."""
    table = file.read(store)
    if table is None:
        raise RawDamaged(file.path, "it is gone, or does not have the sha256 of its manifest")
    return table.slice(max(0, len(table) - rows))


def batches(table: pa.Table) -> Iterator[Served]:
    """Yield the decisions of a table with observations, in batches of a size that fits into memory."""
    spec, schema = version_spec(table.schema), table.schema
    row_bytes = sum(each.row_bytes for each in spec.inputs)
    size = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, row_bytes)))
    for start in range(0, len(table), size):
        part = table.slice(start, size)
        tensors = {
            field.name: tensor_of(part[field.name], field) for field in schema if field.name.startswith((INPUT, OUTPUT))
        }
        yield Served(
            spec,
            _without(INPUT, tensors),
            _without(OUTPUT, tensors),
            part["explored"].to_numpy(),
            _distribution(part["action_dist_inputs"].combine_chunks()),
            int(pc.max(part["row"]).as_py()) + 1,
        )


def _without(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}


def _distribution(column: pa.ListArray) -> NDArray[np.float32] | None:
    """Return a column of lists of one length as an array, NaN for nulls; None if there are only nulls."""
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    known = ~np.isnan(lengths.astype(np.float64))
    if not known.any() or len(set(lengths[known].tolist())) > 1:
        return None
    found = np.full((len(column), int(lengths[known][0])), np.nan, np.float32)
    found[known] = column.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(int(known.sum()), -1)
    return found
