"""Compares training with stable-baselines3, in interleaved runs.

`make bench-training` writes training.json, training.md and training.png. Each run is added to training.json when it
ends. A run that is there already is not repeated, so an interrupted benchmark continues.
"""

import contextlib
import datetime as dt
import json
import os
import platform
import queue
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path

import click

from benchmarks.training import report, results
from benchmarks.training.report import PEERS, WHOLE, YARDSTICK, Run
from benchmarks.training.zoo import ENV_IDS
from serving.processes import available_cpus

ROOT = Path(__file__).parents[2]


@click.command()
@click.option("--env", "env_ids", type=click.Choice(ENV_IDS), multiple=True, help="Environment; all by default.")
@click.option("--kind", "kinds", type=click.Choice([YARDSTICK, WHOLE]), multiple=True, help="Both by default.")
@click.option("--seeds", default=3, show_default=True, help="Number of seeds, from 0.")
@click.option("--parallel", is_flag=True, help="Measure as many runs at the same time as there are cores, one on each.")
@click.option("--again", is_flag=True, help="Repeat the runs that were measured before.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "benchmarks/results")
def main(env_ids: Sequence[str], kinds: Sequence[str], seeds: int, *, parallel: bool, again: bool, out: Path) -> None:
    """Measure this project and stable-baselines3 for each seed, and write the runs, a table and a picture."""
    file = out / "training.json"
    before = set() if again else {results.key(run) for run in results.read(file)}
    planned = plan(kinds or (YARDSTICK, WHOLE), env_ids or ENV_IDS, seeds)
    remaining = [run for run in planned if results.key(run) not in before]
    for run in _beside_each_other(remaining) if parallel else map(_measured, remaining):
        results.merge(file, _machine(), run)
        click.echo({name: value for name, value in run.items() if name not in ("curve", "stages")})
    runs = results.read(file)
    text = f"{_machine()}, commits {', '.join(sorted({run['commit'] for run in runs}))}\n\n{report.tables(runs)}"
    (out / "training.md").write_text(text)
    report.picture(runs).savefig(out / "training.png", dpi=120)
    click.echo(text)


def plan(kinds: Sequence[str], env_ids: Sequence[str], seeds: int) -> Iterator[Run]:
    """Yield the runs in their order: seed by seed, both contenders in turn; the one that comes first alternates."""
    for kind in kinds:
        for seed in range(seeds):
            for env_id in env_ids if kind == YARDSTICK else ["CartPole-v1"]:
                for peer in PEERS if seed % 2 == 0 else PEERS[::-1]:
                    yield {"kind": kind, "env_id": env_id, "seed": seed, "peer": peer}


def _beside_each_other(runs: Sequence[Run]) -> Iterator[Run]:
    """Measure as many runs at the same time as there are cores, each on a core of its own; yield each when it ends."""
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for core in os.sched_getaffinity(0):
        cores.put(core)

    def measured(run: Run) -> Run:
        core = cores.get()
        try:
            return _measured(run, core)
        finally:
            cores.put(core)

    with ThreadPoolExecutor(available_cpus()) as executor:
        yield from (each.result() for each in as_completed([executor.submit(measured, run) for run in runs]))


def _measured(run: Run, core: int | None = None) -> Run:
    """Return a run with its measurements; on one core, or on all."""
    measured = _yardstick(run, core) if run["kind"] == YARDSTICK else _whole_process(run, core)
    return run | {"commit": _commit(), "date": dt.datetime.now(dt.UTC).date().isoformat(), "core": core} | measured


def _yardstick(run: Run, core: int | None) -> Run:
    """Return the seconds to the zoo's return."""
    lines = _run(core, "benchmarks.training.yardstick", run["peer"], run["env_id"], str(run["seed"]))
    measured: Run = json.loads(lines[-1][1])
    return measured | {"steps_per_second": measured["env_steps"] / measured["seconds"]}


def _whole_process(run: Run, core: int | None) -> Run:
    """Return the seconds of the whole process, until the first environment step, and until training ended."""
    begun = time.time()
    if run["peer"] == "ours":
        lines = _run(core, "pipeline", "train", "--seed", str(run["seed"]))
        marks = {"first_step_s": "Training ", "trained_s": "Exporting the best"}
        (minimum,) = (
            float(found[1]) for _, text in lines if (found := re.search(r"Registered m.*minimum ([\d.]+)", text))
        )
    else:
        lines = _run(core, "benchmarks.training.whole_process", str(run["seed"]))
        marks = {"first_step_s": " first step", "trained_s": " trained"}
        minimum = float(lines[-1][1].split()[-1])
    whole_s = time.time() - begun
    times = {name: next(at for at, text in lines if mark in text) - begun for name, mark in marks.items()}
    stages = {
        text.split("] ", 1)[1][:40]: round(at - begun, 2) for at, text in lines if re.match(r"\[ *[\d.]+ s\]", text)
    }
    return {"whole_s": whole_s, **times, "final_minimum": minimum, "stages": stages}


def _run(core: int | None, module: str, *arguments: str) -> list[tuple[float, str]]:
    """Run a module in a temporary directory, and return its lines of output with their times."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RAY_"))}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [
        *(["taskset", "--cpu-list", str(core)] if core is not None else []),
        sys.executable,
        "-m",
        module,
        *arguments,
    ]
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen(
            command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process,
    ):
        lines = [(time.time(), line.rstrip()) for line in process.stdout or ()]
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return [line for line in lines if line[1]]


def _machine() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "stable-baselines3", "mlflow"))
    return f"{available_cpus()} cores, Python {platform.python_version()}, {packages}"


def _commit() -> str:
    """Return the commit of this code, with `-dirty` after local changes; empty outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.strip()
    return ""


if __name__ == "__main__":
    main()
