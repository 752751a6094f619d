"""Measures a machine: replicas, environment runners, and an image policy on CPU and GPU. Needs no network.

`bench-folder/run` starts it on another machine, `python -m benchmarks.cores --bundle DIRECTORY` on this one. After each
part it writes `cores.json` and `cores.md`, so an interrupted run has what it measured.
"""

import json
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.cores_parts import BATCHES, CONNECTIONS, Results, Scope, image, serving, training
from benchmarks.load import generator
from serving.processes import available_cpus

PROJECT = Path(__file__).parent.parent


@click.command()
@click.option("--bundle", required=True, help="A directory with model.onnx and policy.json of CartPole.")
@click.option("--output", default=str(Path(__file__).with_name("results")), show_default=True, help="Where to write.")
@click.option("--seconds", default=5, show_default=True, help="Seconds of load per figure.")
@click.option("--rounds", default=3, show_default=True, help="Interleaved rounds; the tables show medians.")
@click.option("--part", "chosen", multiple=True, help="serving, training or image; can be repeated.  [default: all]")
@click.option("--cores", default=available_cpus(), show_default=True, help="Measure up to so many processes.")
def main(bundle: str, output: str, seconds: int, rounds: int, chosen: tuple[str, ...], cores: int) -> None:
    """Measure each part, and write the results after each."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # as Ctrl-C does: no process is left
    results: Results = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as directory:
        scope = Scope(seconds, rounds, cores, Path(bundle), Path(directory))
        for name in chosen or tuple(PARTS):
            click.echo(f"{name} ...", err=True)
            start = time.monotonic()
            try:
                results[name] = PARTS[name][0](scope)
            except Exception as error:  # noqa: BLE001 - the other parts are measured all the same
                results[name] = {"error": f"{type(error).__name__}: {error}"}
                click.secho(results[name]["error"][:2000], fg="red", err=True)
            click.echo(f"{name}: {time.monotonic() - start:.0f} s", err=True)
            write(results, Path(output))
    click.echo(report(results))


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    commit = PROJECT / "COMMIT"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.read_text().strip() if commit.exists() else _first_line("git", "rev-parse", "--short", "HEAD"),
        "cores": available_cpus(),
        "cpu": next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()),
        "gpu": _first_line("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
        "load generator": generator(),
    }


def _first_line(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT)
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


# The report.


def report(results: Results) -> str:
    """Return the results as Markdown."""
    described = ", ".join(f"{name}: {value}" for name, value in results["machine"].items() if value)
    lines = [described, ""]
    for name, (_, rows) in PARTS.items():
        if name in results:
            error = results[name].get("error")
            lines += [f"{name}: {error}"] if error else rows(results[name])
            lines.append("")
    return "\n".join(lines)


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _load_rows(loads: dict[str, Any]) -> list[str]:
    return [
        f"{each['requests_per_s']:,.0f}, {each['p50_ms']:.2f}, {each['p99_ms']:.2f}"
        + (f" ({each['failed']:,} failed)" if each["failed"] else "")
        for each in loads.values()
    ]


def _serving_rows(found: Results) -> Iterator[str]:
    columns = [f"at {connections}: requests/s, p50, p99 ms" for connections in CONNECTIONS]
    yield _row("server", "processes", *columns)
    yield _row(*["---"] * (len(columns) + 2))
    for server, counts in found.items():
        for count, loads in counts.items():
            yield _row(server, count, *_load_rows(loads))


def _training_rows(found: Results) -> Iterator[str]:
    counts = list(next(iter(found.values())))
    yield _row("environment steps/s, by environment runners", *counts)
    yield _row(*["---"] * (len(counts) + 1))
    for env_id, by_count in found.items():
        yield _row(env_id, *(f"{each['steps_per_s']:,.0f}" for each in by_count.values()))


def _image_rows(found: Results) -> Iterator[str]:
    batches = [f"batch {batch}: observations/s, p50, p99 ms" for batch in BATCHES]
    yield _row("image policy, alone", *batches)
    yield _row(*["---"] * (len(batches) + 1))
    for provider, each in found.items():
        cells = [
            f"{one['observations_per_s']:,.0f}, {one['p50_ms']:.2f}, {one['p99_ms']:.2f}"
            for one in each.get("alone", {}).values()
        ]
        yield _row(provider, *(cells or [f"needs {each['error']}", *[""] * (len(BATCHES) - 1)]))
    yield ""
    yield _row("image policy, served", *(f"at {connections}: requests/s, p50, p99 ms" for connections in CONNECTIONS))
    yield _row(*["---"] * (len(CONNECTIONS) + 1))
    for provider, each in found.items():
        if "served" in each:
            yield _row(provider, *_load_rows(each["served"]))


def write(results: Results, directory: Path) -> None:
    """Write `cores.json` and `cores.md`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cores.json").write_text(json.dumps(results, indent=1) + "\n")
    (directory / "cores.md").write_text(report(results) + "\n")


PARTS: dict[str, tuple[Callable[[Scope], Results], Callable[[Results], Iterator[str]]]] = {
    "serving": (serving, _serving_rows),
    "training": (training, _training_rows),
    "image": (image, _image_rows),
}
"""How each part is measured, and how its results become rows."""


if __name__ == "__main__":
    main()
