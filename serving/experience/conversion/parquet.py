"""Writes the decisions and the reports of a segment as Parquet, in memory."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serving.experience.conversion.audit import OUTCOMES, Audit
from serving.experience.conversion.decisions import NO_MEMBERSHIP, NO_NOISE, Chunk, Table
from serving.experience.episodes import EPISODE_BYTES, NO_STEP
from serving.experience.journal.records import PROTOCOLS
from serving.experience.journal.segment import Record
from serving.experience.tables import EXPERIMENT_FIELDS, FEEDBACK_SCHEMA, INPUT, OUTPUT, column_of, decision_schema

COMPRESSION = "zstd"

# Columns whose values repeat. For the others a dictionary only takes time.
_REPEATING = ["episode", "version", "protocol", "noise_row", "replica", "segment", "row", "audit", "done"]
_REPEATING += [field.name for field in EXPERIMENT_FIELDS]


class ParquetFile:
    """A Parquet file in memory, one row group per table that is added."""

    def __init__(self, schema: pa.Schema) -> None:
        self.rows = 0
        self._buffer = pa.BufferOutputStream()
        repeating = [path for field in schema if (path := _repeating_path(field)) is not None]
        self._writer = pq.ParquetWriter(self._buffer, schema, compression=COMPRESSION, use_dictionary=repeating)

    def add(self, table: pa.Table) -> None:
        """Append the rows of a table."""
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        self.rows += len(table)

    def content(self) -> bytes:
        """Close the file and return its bytes."""
        self._writer.close()
        return bytes(self._buffer.getvalue())


def _repeating_path(field: pa.Field) -> str | None:
    """Return the path in the file of a column whose values repeat: one that is known to, or integers of a tensor."""
    if not field.name.startswith((INPUT, OUTPUT)):
        return field.name if field.name in _REPEATING else None
    is_list = pa.types.is_fixed_size_list(field.type)
    is_integer = pa.types.is_integer(field.type.value_type if is_list else field.type)
    return field.name + ".list.element" * is_list if is_integer else None


def schema_of(table: Table) -> pa.Schema:
    """Return the schema of the decisions of a table."""
    return decision_schema(table.version, table.flags)


def decision_table(chunk: Chunk, audit: Audit, replica: str, segment: int) -> pa.Table:
    """Return the decisions of a chunk with their audit."""
    columns, size = chunk.columns, len(chunk)
    has_noise = columns["noise_row"] != NO_NOISE
    built = {
        "time": _times(columns["time"]),
        "episode": _episodes(columns["episode"]),
        "step": pa.array(columns["step"], mask=columns["step"] == NO_STEP),
        "version": _repeated(chunk.table.version.version, size, pa.int32()),
        "protocol": _names(columns["protocol"], PROTOCOLS),
        "explored": pa.array(columns["explored"]),
        "seed": pa.array(columns["seed"], mask=~has_noise),
        "noise_row": pa.array(columns["noise_row"], mask=~has_noise),
        "previous_reward": pa.array(columns["previous_reward"], mask=np.isnan(columns["previous_reward"])),
        "replica": _repeated(replica, size, pa.string()),
        "segment": _repeated(segment, size, pa.int64()),
        "offset": pa.array(columns["offset"]),
        "row": pa.array(columns["row"]),
        "audit": _names(audit.outcomes, OUTCOMES),
        "action_logp": _floats(audit.logp, size),
        "action_dist_inputs": _lists(audit.inputs, size),
        **_memberships(chunk),
    }
    built |= {name: column_of(values) for name, values in columns.items() if name.startswith((INPUT, OUTPUT))}
    schema = schema_of(chunk.table)
    return pa.Table.from_arrays([built[name].cast(schema.field(name).type) for name in schema.names], schema=schema)


def feedback_row(record: Record, replica: str, segment: int) -> dict[str, Any]:
    """Return the report of a client as a row of FEEDBACK_SCHEMA.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is no such report.
    """
    content = record.content
    return {
        "time": int(content["time_ns"]),
        "episode": bytes.fromhex(content["episode"]),
        "steps": [int(step) for step, _ in content["rewards"]],
        "rewards": [float(reward) for _, reward in content["rewards"]],
        **{name: content.get(name) for name in ("return", "length", "done", "version")},
        "final_observation": _decoded(content.get("final_observation")),
        "replica": replica,
        "segment": segment,
        "offset": record.offset,
    }


def feedback_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return reports as a table, without those that have a number which its column cannot hold."""
    try:
        return pa.Table.from_pylist(rows, schema=FEEDBACK_SCHEMA)
    except (ValueError, TypeError, OverflowError):  # as Arrow's errors are
        return pa.Table.from_pylist([row for row in rows if _fits(row)], schema=FEEDBACK_SCHEMA)


def _fits(row: dict[str, Any]) -> bool:
    try:
        pa.Table.from_pylist([row], schema=FEEDBACK_SCHEMA)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def _decoded(observation: dict[str, str] | None) -> list[tuple[str, bytes]] | None:
    if observation is None:
        return None
    return [(name, base64.b64decode(text, validate=True)) for name, text in observation.items()]


def _memberships(chunk: Chunk) -> dict[str, pa.Array]:
    """Return the columns of EXPERIMENT_FIELDS, null where a request was not part of an experiment."""
    number, share = chunk.columns["membership"], chunk.columns["share"]
    if not chunk.memberships or (number == NO_MEMBERSHIP).all():
        return {field.name: pa.nulls(len(chunk), field.type) for field in EXPERIMENT_FIELDS}
    index = pa.array(number.astype(np.int32), mask=number == NO_MEMBERSHIP)
    experiments, arms = ([each[place] for each in chunk.memberships] for place in (0, 1))
    return {
        "experiment": pa.array(experiments, pa.string()).take(index),
        "arm": pa.array(arms, pa.string()).take(index),
        "share": pa.array(share, mask=np.isnan(share)),
    }


def _times(values: NDArray[np.int64]) -> pa.Array:
    return pa.array(values).cast(pa.timestamp("ns", "UTC"))


def _episodes(values: NDArray[np.uint8]) -> pa.Array:
    """Return hashes `[rows, EPISODE_BYTES]` as a column, null where they are NO_EPISODE."""
    has_none = ~values.any(axis=1)
    validity = pa.array(np.zeros(len(values), np.bool_), mask=has_none).buffers()[0] if has_none.any() else None
    buffers = [validity, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.binary(EPISODE_BYTES), len(values), buffers)


def _names(indices: NDArray[Any], names: Sequence[str]) -> pa.Array:
    """Return the name of each index; "unknown" for those that a later release has added."""
    known = np.minimum(indices, len(names)).astype(np.int32)
    return pa.DictionaryArray.from_arrays(known, pa.array([*names, "unknown"])).cast(pa.string())


def _repeated(value: Any, size: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), size)


def _floats(values: NDArray[np.float32] | None, size: int) -> pa.Array:
    return pa.nulls(size, pa.float32()) if values is None else pa.array(values, mask=np.isnan(values))


def _lists(values: NDArray[np.float32] | None, size: int) -> pa.Array:
    if values is None:
        return pa.nulls(size, pa.list_(pa.float32()))
    offsets = np.arange(size + 1, dtype=np.int32) * np.int32(values.shape[1])
    return pa.ListArray.from_arrays(offsets, np.ascontiguousarray(values).reshape(-1))
