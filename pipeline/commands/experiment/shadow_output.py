"""Prints the result of the command `experiment shadow`."""

from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pipeline.experiment.shadow.figures import Figures
    from pipeline.experiment.shadow.latency import Latency
    from pipeline.experiment.shadow.shadow import Shadow


def print_shadow(shadow: "Shadow", run_id: str) -> None:
    """Print how the challenger differs from each version that is served, its latency, and what follows."""
    number = shadow.challenger.version
    Console().print(_differences(shadow))
    click.echo()
    Console().print(_latencies(shadow.latencies))
    for note in shadow.notes:
        click.secho(f"\n{note}", fg="yellow")
    click.echo(f"\nLogged in run {run_id}: in MLflow 'shadow {shadow.challenger.name} {number}'.")
    total = shadow.total
    if not shadow.is_finite:
        click.secho(
            f"Version {number} failed on {total.failed:,} decisions, and computed NaN or infinities for "
            f"{total.non_finite:,} of {total.decisions:,}. Do not promote it.",
            fg="red",
        )
    if not shadow.is_fast:
        click.secho(f"Version {number} is slower than the limit of {shadow.max_latency_ms:g} ms.", fg="red")
    click.echo("This says nothing about the return: whether another action is better is not recorded.")


def _differences(shadow: "Shadow") -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    variation = "TV" if shadow.is_exact else "TV bound"
    numbers = ("distance", "p99") if shadow.has_numbers else ()
    for title in ("served", "decisions", "agree", *numbers, variation, "p99", "not finite", "failed"):
        table.add_column(title, no_wrap=True, justify="right")
    rows = [(str(number), figures) for number, figures in shadow.versions.items()]
    if len(rows) > 1:
        rows.append(("all", shadow.total))
    for name, figures in rows:
        table.add_row(name, *_cells(figures, has_numbers=shadow.has_numbers))
    return table


def _cells(figures: "Figures", *, has_numbers: bool) -> list[str]:
    spreads = [figures.distance, figures.variation] if has_numbers else [figures.variation]
    return [
        f"{figures.decisions:,}",
        "-" if figures.agreement is None else f"{figures.agreement:.2%}",
        *(_number(value) for each in spreads for value in (each.mean, each.quantile(0.99))),
        f"{figures.non_finite:,}",
        f"{figures.failed:,}",
    ]


def _latencies(latencies: "list[Latency]") -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("batch", "ms p50", "p99", "served p50", "p99", "us per observation"):
        table.add_column(title, no_wrap=True, justify="right")
    for each in latencies:
        champion = [f"{value:.3f}" for value in each.champion] if each.champion else ["-", "-"]
        own = [f"{value:.3f}" for value in each.challenger]
        table.add_row(str(each.batch), *own, *champion, f"{1e3 * each.challenger[0] / each.batch:.1f}")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
