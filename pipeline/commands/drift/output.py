"""Prints the result of the command `drift`."""

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pipeline.drift.comparison import DimensionDrift, Statistic
    from pipeline.drift.measure import Drift

_SHOWN = 10
"""The dimensions that are shown, besides those that alarm."""


def print_drift(drift: "Drift", run_id: str) -> None:
    """Print the dimensions that differ most, and whether they alarm."""
    from pipeline.drift.live import described

    live, comparison = drift.live, drift.comparison
    click.echo(
        f"Version {drift.version} of '{drift.model}': {len(live.sketches):,} live episodes from {_time(live.first_ns)} "
        f"to {_time(live.last_ns)}{described(live.left_out)}; reference of {drift.reference.episodes:,} episodes.\n"
    )
    shown = [each for index, each in enumerate(comparison.dimensions) if each.ratio > 1 or index < _SHOWN]
    Console().print(_table(shown))
    hidden = len(comparison.dimensions) - len(shown)
    if hidden:
        click.echo(f"and {hidden:,} rows below their thresholds.")
    names = {each.dimension for each in comparison.dimensions if each.ratio > 1}
    if comparison.alarms:
        click.secho(
            f"\nAlarm: the observations have drifted in {len(names)} of {len(drift.reference.dimensions)} dimensions "
            f"(p {comparison.p_value:.2g}, alpha {comparison.alpha:g}). Nothing was rolled back.",
            fg="red",
        )
    else:
        click.echo(f"\nNo drift at alpha {comparison.alpha:g} (p {comparison.p_value:.2g}).")
    click.echo(f"Logged in run {run_id}: in MLflow 'drift of {drift.model} version {drift.version}'.")


def _table(rows: "list[DimensionDrift]") -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("dimension", overflow="fold")
    table.add_column("steps", no_wrap=True)
    for title in ("mean", "live mean", "PSI/threshold", "distance/threshold", ""):
        table.add_column(title, no_wrap=True, justify="right")
    for each in rows:
        means = ("" if math.isnan(mean) else f"{mean:.3g}" for mean in (each.reference_mean, each.live_mean))
        cells = (*means, _cell(each.psi), _cell(each.distance), "alarm" if each.ratio > 1 else "")
        table.add_row(each.dimension, each.steps.split()[0], *cells, style="red" if each.ratio > 1 else "")
    return table


def _cell(statistic: "Statistic") -> str:
    threshold = f"{statistic.threshold:.3f}" if math.isfinite(statistic.threshold) else "-"
    return f"{statistic.value:.3f} / {threshold}"


def _time(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d %H:%M}"
