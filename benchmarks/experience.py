"""`make bench-experience`: seconds and memory of `experience compact` and `stats` by the number of decisions.

The raw files are those of CartPole's tensors in random order: one file per 100,000 decisions, the reward in the request
after each step, and one feedback event at the end of each episode.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving.experience.journal.records import TensorSpec, VersionSpec
from serving.experience.store import Store, open_store
from serving.experience.tables import FEEDBACK_SCHEMA, column_of, decision_schema

MODEL = "bench"
FILE_ROWS = 100_000
LENGTH = 200
BEGUN_NS = 1_790_000_000 * 10**9
MIB = 2**20
SPEC = VersionSpec(
    MODEL, 1, None, {}, "nowhere", (TensorSpec("observations", "<f4", (4,)),), (TensorSpec("action", "<i8", ()),)
)


def write_raw(store: Store, decisions: int) -> None:
    """Write raw files with episodes of LENGTH steps. A segment has one part of the steps of its episodes, shuffled."""
    rng = np.random.default_rng(0)
    for segment, first in enumerate(range(0, decisions, FILE_ROWS)):
        rows = min(FILE_ROWS, decisions - first)
        # Neighbouring segments share episodes: the later half of one's begins in the one before.
        number = (np.arange(first, first + rows) + FILE_ROWS // 2) // LENGTH
        step = (np.arange(first, first + rows) + FILE_ROWS // 2) % LENGTH
        order = rng.permutation(rows)
        table = _decisions(number[order], step[order], segment, rng)
        events = _feedback(np.unique(number), segment)
        _write_segment(store, segment, table, events)


def _hashes(numbers: np.ndarray[Any, Any]) -> pa.Array:
    """Return a 16-byte hash for each number."""
    unique, inverse = np.unique(numbers, return_inverse=True)
    hashes = [hashlib.blake2b(int(number).to_bytes(8, "little"), digest_size=16).digest() for number in unique]
    return pa.array(hashes, pa.binary(16)).take(pa.array(inverse))


def _decisions(number: Any, step: Any, segment: int, rng: np.random.Generator) -> pa.Table:
    rows, schema = len(number), decision_schema(SPEC)
    columns = {
        "time": pa.array(BEGUN_NS + number * 1000 + step).cast(pa.timestamp("ns", "UTC")),
        "episode": _hashes(number),
        "step": pa.array(step),
        "previous_reward": pa.array(np.ones(rows), mask=step == 0),
        "offset": pa.array(np.arange(rows) * 64),
        "row": pa.array(np.zeros(rows, np.int32)),
        "action_logp": pa.array(rng.standard_normal(rows).astype(np.float32)),
        "action_dist_inputs": pa.ListArray.from_arrays(
            np.arange(rows + 1, dtype=np.int32) * 2, rng.standard_normal(2 * rows).astype(np.float32)
        ),
        "input.observations": column_of(rng.standard_normal((rows, 4)).astype(np.float32)),
        "output.action": pa.array(rng.integers(2, size=rows)),
    }
    constants = {"version": 1, "protocol": "native", "explored": True, "replica": "r", "segment": segment}
    constants |= {"audit": "ok", "seed": 1, "noise_row": 0, "experiment": None, "arm": None, "share": None}
    for name, value in constants.items():
        columns[name] = pa.repeat(pa.scalar(value, schema.field(name).type), rows)
    return pa.table([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)


def _feedback(number: Any, segment: int) -> pa.Table:
    rows = len(number)
    columns: dict[str, Any] = {
        "time": pa.array(BEGUN_NS + number * 1000 + LENGTH).cast(pa.timestamp("ns", "UTC")),
        "episode": _hashes(number),
        "steps": [[LENGTH - 1]] * rows,
        "rewards": [[1.0]] * rows,
        "return": [float(LENGTH)] * rows,
        "length": [LENGTH] * rows,
        "done": ["terminated"] * rows,
        "version": [1] * rows,
        "final_observation": [[("observations", bytes(16))]] * rows,
        "replica": ["r"] * rows,
        "segment": [segment] * rows,
        "offset": list(range(rows)),
    }
    return pa.table([pa.array(columns[each.name], each.type) for each in FEEDBACK_SCHEMA], schema=FEEDBACK_SCHEMA)


def _write_segment(store: Store, segment: int, decisions: pa.Table, feedback: pa.Table) -> None:
    name, files = f"{MODEL}/2026-09-21/r-{segment}", {}
    for path, table in ((f"decisions/{name}-v1.parquet", decisions), (f"feedback/{name}.parquet", feedback)):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        store.write(path, content)
        files[path] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "rows": len(table)}
    counts = {"decisions": len(decisions), "audit": {"ok": len(decisions)}}
    manifest = {"format": 1, "files": files, "versions": {"1": counts}, "time": [BEGUN_NS, BEGUN_NS + 1]}
    store.write(f"manifests/{name}.json", json.dumps(manifest).encode())


class Usage(NamedTuple):
    """What a command took."""

    seconds: float
    cpu_s: float
    peak_mib: float


def measured(*command: str) -> Usage:
    """Run `python -m pipeline experience` in a process of its own."""
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "pipeline", "experience", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Usage(time.monotonic() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


@click.command()
@click.option("--decisions", default="1000000,10000000", show_default=True, help="Numbers of decisions.")
@click.option("--scratch", type=click.Path(file_okay=False), help="Where raw and temporary files go.")
def main(decisions: str, scratch: str | None) -> None:
    """Print seconds and peak memory of compact and stats."""
    figures = " | ".join(f"{command}: s | CPU, s | peak memory, MiB" for command in ("compact", "stats"))
    click.echo(f"| decisions | raw files, MiB | {figures} |")
    click.echo("| --- " * 8 + "|")
    for count in map(int, decisions.split(",")):
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            write_raw(open_store(directory), count)
            size = sum(file.stat().st_size for file in Path(directory).rglob("*") if file.is_file()) / MIB
            usages = [
                measured("compact", directory, *(("--scratch", scratch) if scratch else ())),
                measured("stats", directory),
            ]
        cells = " | ".join(f"{each.seconds:.1f} | {each.cpu_s:.1f} | {each.peak_mib:,.0f}" for each in usages)
        click.echo(f"| {count:,} | {size:,.0f} | {cells} |")


if __name__ == "__main__":
    main()
