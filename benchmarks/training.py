"""Compares training with stable-baselines3, in interleaved runs.

`make bench-training` writes training.json, training.md and training.png.
"""

import contextlib
import fcntl
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from matplotlib.figure import Figure

from serving.processes import available_cpus

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PEERS = ("ours", "stable-baselines3")
TARGETS = {"greedy_s": 0.6, "last_100_s": 0.8, "whole_s": 1.1}

Record = dict[str, Any]


@click.command()
@click.option("--seeds", default=5, show_default=True, help="Number of seeds, from 0.")
@click.option("--lock", type=click.Path(path_type=Path), help="File to lock during each measurement.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=RESULTS, help="Directory of the results."
)
def main(seeds: int, lock: Path | None, out: Path) -> None:
    """Measure both for each seed, and write the measurements, the table and the plot."""
    yardstick: list[Record] = []
    whole: list[Record] = []
    for seed in range(seeds):
        for peer in PEERS if seed % 2 == 0 else PEERS[::-1]:
            with _locked(lock):
                whole.append(_whole_process(peer, seed))
            with _locked(lock):
                yardstick.append(json.loads(_run("benchmarks.training_yardstick", peer, str(seed))[-1][1]))
            sys.stdout.write(f"{_short(yardstick[-1])} {whole[-1]}\n")
            sys.stdout.flush()
        _write({"machine": _machine(), "yardstick": yardstick, "whole": whole}, out)


def _write(results: Record, out: Path) -> None:
    """Write the results; called after each seed, so that an abort loses only one."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "training.json").write_text(json.dumps(results, indent=1))
    (out / "training.md").write_text(table(results))
    _plot(results["yardstick"]).savefig(out / "training.png", dpi=120)
    sys.stdout.write(table(results))
    sys.stdout.flush()


@contextlib.contextmanager
def _locked(file: Path | None) -> Iterator[None]:
    if file is None:
        yield
        return
    with file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _whole_process(peer: str, seed: int) -> Record:
    """Return the seconds of the whole process, until the first environment step, and until training ended."""
    begun = time.time()
    if peer == "ours":
        lines = _run("pipeline", "train", "--seed", str(seed))
        marks = {"first_step_s": "Training ", "trained_s": "Exporting the best"}
        (minimum,) = (
            float(found[1]) for _, text in lines if (found := re.search(r"Registered m.*minimum ([\d.]+)", text))
        )
    else:
        lines = _run("benchmarks.training_sb3", str(seed))
        marks = {"first_step_s": " first step", "trained_s": " trained"}
        minimum = float(lines[-1][1].split()[-1])
    whole_s = time.time() - begun
    times = {name: next(at for at, text in lines if mark in text) - begun for name, mark in marks.items()}
    stages = {
        text.split("] ", 1)[1][:40]: round(at - begun, 2) for at, text in lines if re.match(r"\[ *[\d.]+ s\]", text)
    }
    return {"peer": peer, "seed": seed, "whole_s": whole_s, **times, "final_minimum": minimum, "stages": stages}


def _run(module: str, *arguments: str) -> list[tuple[float, str]]:
    """Run a module in a temporary directory, and return its lines of output with their times."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RAY_"))}
    environment |= {"PYTHONPATH": str(HERE.parent), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", module, *arguments]
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


def table(results: Record) -> str:
    """Return the results as a Markdown table."""
    rows = ["| figure | ours, per seed | stable-baselines3, per seed | medians | ratio | target |"]
    rows += ["| --- | --- | --- | --- | --- | --- |"]
    for label, kind, key in (
        ("seconds to a greedy mean of 475", "yardstick", "greedy_s"),
        ("seconds to a mean of 475 over the last 100 episodes", "yardstick", "last_100_s"),
        ("environment steps to a greedy mean of 475", "yardstick", "greedy_steps"),
        ("environment steps to a last-100 mean of 475", "yardstick", "last_100_steps"),
        ("whole process, seconds", "whole", "whole_s"),
        ("of it, until the first environment step", "whole", "first_step_s"),
        ("lowest of the 100 final returns", "whole", "final_minimum"),
    ):
        ours, theirs = ([each[key] for each in results[kind] if each["peer"] == peer] for peer in PEERS)
        medians = [_median(values) for values in (ours, theirs)]
        ratio = f"{medians[0] / medians[1]:.2f}"
        target = f"at most {TARGETS[key]}" if key in TARGETS else ""
        cells = [label, _row(ours), _row(theirs), f"{medians[0]:.1f} / {medians[1]:.1f}", ratio, target]
        rows.append(f"| {' | '.join(cells)} |")
    return f"{results['machine']}\n\n" + "\n".join(rows) + "\n"


def _median(values: list[float | None]) -> float:
    """Return the median, with infinity for a seed that did not reach the target."""
    return statistics.median(float("inf") if value is None else value for value in values)


def _row(values: list[float | None]) -> str:
    return ", ".join("never" if value is None else f"{value:,.5g}" for value in values)


def _machine() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "stable-baselines3", "mlflow"))
    return f"{available_cpus()} cores, Python {platform.python_version()}, {packages}"


def _short(measured: Record) -> Record:
    return {key: value for key, value in measured.items() if not key.endswith("_curve")}


def _plot(yardstick: list[Record]) -> Figure:
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for measured in yardstick:
        color = "tab:blue" if measured["peer"] == "ours" else "tab:orange"
        label = measured["peer"] if measured["seed"] == 0 else None
        for axes, key in ((left, "greedy_curve"), (right, "last_100_curve")):
            seconds, _, returns = zip(*measured[key], strict=True)
            axes.plot(seconds, returns, color=color, label=label, marker="o" if axes is left else None, alpha=0.7)
    left.set(title="greedy evaluation, 100 episodes", xlabel="seconds of training", ylabel="mean return")
    right.set(title="last 100 training episodes", xlabel="seconds of training")
    for axes in (left, right):
        axes.axhline(475, color="gray", linestyle="--")
        axes.grid(alpha=0.3)
    left.legend()
    return figure


if __name__ == "__main__":
    main()
