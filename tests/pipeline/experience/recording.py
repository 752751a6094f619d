"""Writes raw tables as a converter does: decisions, feedback and manifests, with the functions of the server."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving.experience.episodes import EpisodeHasher
from serving.experience.journal.records import TensorSpec, VersionSpec
from serving.experience.store import Store
from serving.experience.tables import FEEDBACK_SCHEMA, INPUT, OUTPUT, column_of, decision_schema

MODEL = "cartpole-ppo"
DAY_NS = 86_400 * 10**9
NOW_NS = 1_800_000_000 * 10**9  # 2027-01-15
HASH = EpisodeHasher()


def spec(version=3, inputs=(("observations", "<f4", (4,)),), outputs=(("action", "<i8", ()),)):
    """Return a version with these tensors; by default those of CartPole."""
    tensors = [tuple(TensorSpec(*each) for each in side) for side in (inputs, outputs)]
    return VersionSpec(MODEL, version, "run", {"model.onnx": "00"}, "sqlite://", *tensors)


@dataclass
class Decision:
    """One decision; `at` is in seconds before NOW_NS."""

    episode: str | None
    step: int | None
    at: float
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    previous_reward: float | None = None
    explored: bool = False
    logp: float | None = None
    audit: str = "ok"
    row: int = 0
    offset: int | None = None
    experiment: str | None = None
    arm: str | None = None
    share: float | None = None


@dataclass
class Feedback:
    """One event of feedback."""

    episode: str
    at: float
    rewards: dict[int, float] = field(default_factory=dict)
    total: float | None = None
    length: int | None = None
    done: str | None = None
    final: dict[str, Any] | None = None


def ns(at):
    return NOW_NS - int(at * 1e9)


def hashed(name):
    return None if name is None else HASH(name)


def decision_table(version, decisions, replica="r1", segment=0, flags=0):
    """Return decisions as a table of the server."""
    schema = decision_schema(version, flags)
    size = len(decisions)
    columns = {
        "time": pa.array([ns(each.at) for each in decisions], pa.timestamp("ns", "UTC")),
        "episode": [hashed(each.episode) for each in decisions],
        "step": [each.step for each in decisions],
        "version": [version.version] * size,
        "protocol": ["native"] * size,
        "explored": [each.explored for each in decisions],
        "seed": [None] * size,
        "noise_row": [None] * size,
        "previous_reward": [each.previous_reward for each in decisions],
        "replica": [replica] * size,
        "segment": [segment] * size,
        "offset": [100 * index if each.offset is None else each.offset for index, each in enumerate(decisions)],
        "row": [each.row for each in decisions],
        "audit": [each.audit for each in decisions],
        "action_logp": [each.logp for each in decisions],
        "action_dist_inputs": [[0.5, each.at] for each in decisions],
        **{name: [getattr(each, name) for each in decisions] for name in ("experiment", "arm", "share")},
    }
    columns = {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}
    for prefix, side, tensors in ((INPUT, "inputs", version.inputs), (OUTPUT, "outputs", version.outputs)):
        for tensor in tensors:
            if prefix + tensor.name not in schema.names:
                continue
            kind = schema.field(prefix + tensor.name).type
            shape = (kind.list_size,) if pa.types.is_fixed_size_list(kind) and flags else tensor.shape
            dtype = kind.value_type.to_pandas_dtype() if pa.types.is_fixed_size_list(kind) else tensor.dtype
            values = [getattr(each, side)[tensor.name] for each in decisions]
            columns[prefix + tensor.name] = column_of(np.asarray(values, dtype).reshape(size, *shape)).cast(kind)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def feedback_table(events, replica="r1", segment=0):
    """Return feedback as a table of the server."""
    rows = [
        {
            "time": ns(each.at),
            "episode": hashed(each.episode),
            "steps": list(each.rewards),
            "rewards": list(each.rewards.values()),
            "return": each.total,
            "length": each.length,
            "done": each.done,
            "version": None,
            "final_observation": None
            if each.final is None
            else [(name, np.ascontiguousarray(value).tobytes()) for name, value in each.final.items()],
            "replica": replica,
            "segment": segment,
            "offset": 50_000_000 + index,
        }
        for index, each in enumerate(events)
    ]
    return pa.Table.from_pylist(rows, schema=FEEDBACK_SCHEMA)


def parquet(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def write_segment(
    store: Store, tables=(), feedback=None, segment=0, replica="r1", day="2027-01-14", model=MODEL, dropped=(0, 0)
):
    """Write the files of one segment, and its manifest; return the paths."""
    name, files, audit, versions = f"{model}/{day}/{replica}-{segment}", {}, Counter(), {}
    for table in tables:
        version = table["version"][0].as_py()
        counts = Counter(table["audit"].to_pylist())
        audit.update(counts)
        versions[str(version)] = {"decisions": len(table), "audit": counts}
        files[f"decisions/{name}-v{version}.parquet"] = table
    if feedback is not None:
        files[f"feedback/{name}.parquet"] = feedback
    listed = {}
    for path, table in files.items():
        content = parquet(table)
        store.write(path, content)
        listed[path] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "rows": len(table)}
    times = [time for table in files.values() for time in table["time"].cast(pa.int64()).to_pylist()]
    manifest = {
        "format": 1,
        "model": model,
        "replica": replica,
        "segment": segment,
        "decisions": sum(audit.values()),
        "feedback": 0 if feedback is None else len(feedback),
        "time": [min(times), max(times)] if times else None,
        "versions": versions,
        "audit": audit,
        "dropped": {"decisions": dropped[0], "feedback": dropped[1], "reasons": {}},
        "lost_bytes": 0,
        "files": listed,
    }
    store.write(f"manifests/{name}.json", json.dumps(manifest).encode())
    return [*files, f"manifests/{name}.json"]


class Crash(Exception):
    """Ends a command in the middle, as a kill would."""


@dataclass(frozen=True)
class CrashingStore(Store):
    """A store that ends the command before its n-th change, or calls a function after the n-th."""

    changes: list[str] = field(default_factory=list)
    crash_at: int | None = None

    def write(self, path, content):
        self._changing(path)
        super().write(path, content)

    def delete(self, path):
        self._changing(path)
        super().delete(path)

    def _changing(self, path):
        if len(self.changes) == self.crash_at:
            raise Crash(path)
        self.changes.append(path)


def crashing(store, crash_at=None):
    return CrashingStore(store.uri, store.filesystem, store.local, crash_at=crash_at)
