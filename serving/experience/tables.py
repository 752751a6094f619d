"""The tables of experience in Parquet: one row per decision, and one per report of a client.

Below the experience URI:

    decisions/<model>/<day>/<replica>-<segment>-v<version>.parquet
    feedback/<model>/<day>/<replica>-<segment>.parquet
    manifests/<model>/<day>/<replica>-<segment>.json

The names follow from the segment, so converting a segment again replaces its files.
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serving.experience.episodes import EPISODE_BYTES
from serving.experience.journal.records import DIGEST_BYTES, DIGESTS, OMITTED, TensorSpec, VersionSpec

FORMAT = 1

INPUT, OUTPUT = "input.", "output."
"""The prefixes of the columns with the tensors of the observations and states, and of the actions."""

SPEC_KEY = b"version_spec"
"""The key of a decision table's metadata with `VersionSpec.to_json` as JSON."""
SHAPE_KEY = b"shape"
"""The key of a tensor column's metadata with the shape of one element, as JSON."""
DIGEST_KEY = b"digest"
"""The key of a tensor column's metadata that says it holds BLAKE2b hashes of the tensors instead of the tensors."""

OK, DIFFERS, UNCHECKED = "ok", "differs", "unchecked"
"""The outcomes of the audit of a decision: the action that the bundle computes again is the one that was served, is
another one, or could not be computed, as the observation was not recorded or the bundle is gone."""

EXPERIMENT_FIELDS = (
    pa.field("experiment", pa.string()),  # null: the request was not part of one
    pa.field("arm", pa.string()),  # CHAMPION or CHALLENGER, also if the champion answered as the challenger failed
    pa.field("share", pa.float64()),  # the challenger's share at that time
)
"""The columns of decisions and whole episodes of an experiment. Tables of earlier releases do not have them."""

_DECISION = [
    pa.field("time", pa.timestamp("ns", "UTC"), nullable=False),
    pa.field("episode", pa.binary(EPISODE_BYTES)),  # null: the request named none
    pa.field("step", pa.int64()),  # null: the request gave none
    pa.field("version", pa.int32(), nullable=False),
    pa.field("protocol", pa.string(), nullable=False),
    pa.field("explored", pa.bool_(), nullable=False),
    pa.field("seed", pa.uint64()),  # null: greedy. The noise is row `noise_row` of Noise.draw(noise_row + 1, seed)
    pa.field("noise_row", pa.int32()),
    pa.field("previous_reward", pa.float64()),  # the reward of step - 1, if the request carried it
    pa.field("replica", pa.string(), nullable=False),
    pa.field("segment", pa.int64(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),  # (replica, segment, offset, row) identify a decision
    pa.field("row", pa.int32(), nullable=False),
    pa.field("audit", pa.string(), nullable=False),
    pa.field("action_logp", pa.float32()),
    pa.field("action_dist_inputs", pa.list_(pa.float32())),
    *EXPERIMENT_FIELDS,
]

FEEDBACK_SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("ns", "UTC"), nullable=False),
        pa.field("episode", pa.binary(EPISODE_BYTES), nullable=False),
        pa.field("steps", pa.list_(pa.int64()), nullable=False),
        pa.field("rewards", pa.list_(pa.float64()), nullable=False),
        pa.field("return", pa.float64()),
        pa.field("length", pa.int64()),
        pa.field("done", pa.string()),  # "terminated", "truncated" or null
        pa.field("version", pa.int32()),  # the version that the client names, or null
        pa.field("final_observation", pa.map_(pa.string(), pa.binary())),  # little-endian bytes by the input's name
        pa.field("replica", pa.string(), nullable=False),
        pa.field("segment", pa.int64(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
    ],
    metadata={b"format": str(FORMAT).encode()},
)


def model_directory(model: str) -> str:
    """Return the name of a model's directories: its own, with the characters escaped that a path could not have."""
    escaped = quote(model, safe="@ ()[]+=,!~")
    return escaped if escaped.strip(".") else escaped.replace(".", "%2E")


def decision_schema(version: VersionSpec, flags: int = 0) -> pa.Schema:
    """Return the schema of a version's decisions, whose observations are as the flags of their records say."""
    inputs = () if flags & OMITTED else version.inputs
    digests = bool(flags & DIGESTS)
    columns = [_tensor_field(INPUT, spec, digests=digests) for spec in inputs]
    columns += [_tensor_field(OUTPUT, spec) for spec in version.outputs]
    metadata = {b"format": str(FORMAT).encode(), SPEC_KEY: json.dumps(version.to_json()).encode()}
    return pa.schema([*_DECISION, *columns], metadata=metadata)


def version_spec(schema: pa.Schema) -> VersionSpec:
    """Return the version of a table of decisions."""
    return VersionSpec.from_json(json.loads(schema.metadata[SPEC_KEY]))


def column_of(tensor: NDArray[Any]) -> pa.Array:
    """Return a tensor `[rows, *shape]` as a column: of numbers if the shape is empty, else of flat lists."""
    values = pa.array(np.ascontiguousarray(tensor).reshape(-1))
    if tensor.ndim == 1:
        return values
    size = int(np.prod(tensor.shape[1:], dtype=np.int64))
    # A list of no elements has no values from which the number of rows would follow.
    return (
        pa.FixedSizeListArray.from_arrays(values, size) if size else pa.array([[]] * len(tensor), _list_of(values, 0))
    )


def tensor_of(column: pa.ChunkedArray | pa.Array, field: pa.Field) -> NDArray[Any]:
    """Return a column of `column_of` as a tensor `[rows, *shape]`."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    shape = json.loads((field.metadata or {}).get(SHAPE_KEY, b"[]"))
    flat = array.flatten() if pa.types.is_fixed_size_list(array.type) else array
    return flat.to_numpy(zero_copy_only=False).reshape(len(array), *shape)  # type: ignore[no-any-return]


def _tensor_field(prefix: str, spec: TensorSpec, *, digests: bool = False) -> pa.Field:
    if digests:
        marks = {SHAPE_KEY: json.dumps([DIGEST_BYTES]).encode(), DIGEST_KEY: b"blake2b"}
        return pa.field(prefix + spec.name, pa.list_(pa.uint8(), DIGEST_BYTES), metadata=marks)
    kind = pa.from_numpy_dtype(np.dtype(spec.dtype))
    size = int(np.prod(spec.shape, dtype=np.int64))
    shape = {SHAPE_KEY: json.dumps(list(spec.shape)).encode()}
    return pa.field(prefix + spec.name, pa.list_(kind, size) if spec.shape else kind, metadata=shape)


def _list_of(values: pa.Array, size: int) -> pa.DataType:
    return pa.list_(values.type, size)


def null_where(values: Sequence[Any], missing: Sequence[bool], kind: pa.DataType) -> pa.Array:
    """Return a column of the values, null where they are missing."""
    return pa.array(values, kind, mask=np.asarray(missing, np.bool_))


def with_experiments(table: pa.Table) -> pa.Table:
    """Return a table of decisions with EXPERIMENT_FIELDS, which are null if an earlier release has written it."""
    for field in EXPERIMENT_FIELDS:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table
