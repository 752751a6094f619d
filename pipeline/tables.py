"""Prints tables in the terminal."""

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table

from pipeline.registry.gate import Verdict
from pipeline.registry.history import Event
from pipeline.registry.promotion import VersionRow
from pipeline.verification.checks import Check

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def versions_table(rows: Sequence[VersionRow]) -> None:
    """Print the versions of a model, one line each."""
    table = Table("version", "stage", "aliases", "return", "age", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(
            str(row.version),
            "-" if row.stage == "None" else row.stage,
            ", ".join(row.aliases) or "-",
            "-" if row.return_mean is None else f"{row.return_mean:.1f}",
            age(row.age_s),
        )
    Console().print(table)


def verdict_table(verdict: Verdict) -> None:
    """Print the returns of the challenger and the champion, and their difference."""
    table = Table("", "mean return", "std", "minimum", box=None, header_style="bold", pad_edge=False)
    for role, result in (("challenger", verdict.challenger), ("champion", verdict.champion)):
        if result is not None:
            table.add_row(role, f"{result.mean:.1f}", f"{result.std:.1f}", f"{result.minimum:.1f}")
    Console().print(table)
    for result in (verdict.challenger, verdict.champion):
        if result is not None and result.notice:
            click.secho(result.notice, fg="yellow")
    if verdict.difference_bound is not None:
        click.echo(
            f"On the same {len(verdict.challenger.returns)} seeds, the lower 95% bound of challenger - champion is "
            f"{verdict.difference_bound:+.1f}; {-verdict.allowed_loss:.1f} is allowed."
        )


def timeline_table(events: Sequence[Event]) -> None:
    """Print the history of a stage or an alias, the newest event first."""
    table = Table("when (UTC)", "version", "by", "what", "why", box=None, header_style="bold", pad_edge=False)
    for event in reversed(events):
        version = "-" if event.version is None else str(event.version)
        table.add_row(event.at[:19].replace("T", " "), version, event.by, event.kind, event.why)
    Console(soft_wrap=True).print(table)


def checks_table(checks: Sequence[Check]) -> None:
    """Print the result of each check of a verification."""
    table = Table("check", "compared", "difference", box=None, header_style="bold", pad_edge=False)
    for check in checks:
        table.add_row(check.name, f"{check.count:,}", check.failure or "-")
    Console().print(table)


def age(seconds: float) -> str:
    """Return a duration in its largest whole unit, such as `3 hours`."""
    length, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    count = int(seconds // length)
    return f"{count} {unit}" + ("" if count == 1 else "s")
