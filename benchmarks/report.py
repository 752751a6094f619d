"""The figures as a table on the terminal, a JSON file and a plot."""

import json
from pathlib import Path

import click

from benchmarks.targets import TARGETS, Results

CONNECTIONS = ("1", "16", "64")


def table(results: Results) -> str:
    """Return the figures as Markdown."""
    header = "requests/s at 1 | at 16 | at 64 | p50 at 1, ms | p99 at 1, ms | p99 at 16, ms | cold start, s | USS, MiB"
    lines = [f"| server | {header} |", "| --- " * 9 + "|"]
    for name, load in results["load"].items():
        rates = [f"{load[connections]['requests_per_s']:,.0f}" for connections in CONNECTIONS]
        latencies = [f"{load[at][figure]:.2f}" for at, figure in (("1", "p50_ms"), ("1", "p99_ms"), ("16", "p99_ms"))]
        server = name in results["memory"]  # else it is another way to ask one
        rest = [f"{results['cold_start_s'][name]:.1f}", f"{results['memory'][name]['uss']:.0f}"] if server else ["", ""]
        lines.append(f"| {' | '.join([name, *rates, *latencies, *rest])} |")
    return "\n".join([*lines, "", *_batches(results), "", *_targets(results)])


def _batches(results: Results) -> list[str]:
    sizes, rates = zip(*results["batch"].items(), strict=True)
    return [
        f"| observations per request | {' | '.join(sizes)} |",
        "| --- " * (len(sizes) + 1) + "|",
        f"| observations/s | {' | '.join(f'{rate:,.0f}' for rate in rates)} |",
    ]


def _targets(results: Results) -> list[str]:
    lines = ["| figure | measured | target | |", "| --- | --- | --- | --- |"]
    for target in TARGETS:
        bound = f"at {'least' if target.at_least else 'most'} {target.bound:g}"
        verdict = "met" if target.met(results) else "not met"
        lines.append(f"| {target.name} | {target.figure(results):.2f} | {bound} | {verdict} |")
    return lines


def write(results: Results, directory: Path) -> None:
    """Write `serving.json`, `serving.md` and `serving.png`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "serving.json").write_text(json.dumps(results, indent=1) + "\n")
    (directory / "serving.md").write_text(table(results) + "\n")
    plot(results, directory / "serving.png")
    click.echo(f"Written: {directory}/serving.json, serving.md, serving.png")


def plot(results: Results, file: Path) -> None:
    """Draw requests/s by connections, and p50 and p99 at one connection."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    rates, latencies = figure.subplots(1, 2)
    names = list(results["load"])
    for place, connections in enumerate(CONNECTIONS):
        widths = [results["load"][name][connections]["requests_per_s"] for name in names]
        rates.barh([row + (place - 1) * 0.27 for row in range(len(names))], widths, 0.25, label=connections)
    for place, percentile in enumerate(("p50", "p99")):
        widths = [results["load"][name]["1"][f"{percentile}_ms"] for name in names]
        latencies.barh([row + (place - 0.5) * 0.4 for row in range(len(names))], widths, 0.38, label=percentile)
    rates.set_title("Requests/s, by connections")
    latencies.set_title("Latency at one connection, ms")
    latencies.set_xscale("log")
    for axes in (rates, latencies):
        axes.set_yticks(range(len(names)), names if axes is rates else [])
        axes.invert_yaxis()
        axes.legend()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
