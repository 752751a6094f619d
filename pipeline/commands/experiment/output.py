"""Prints the results of the command `experiment plan`."""

import shlex
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from pipeline.config import TrainConfig

if TYPE_CHECKING:
    from pipeline.experiment.plan import Baseline, Need, Plan
    from pipeline.experiment.recorded import Recorded

_LONG_DAYS = 30


def print_recorded(recorded: "Recorded") -> None:
    """Print which version's returns a plan begins from."""
    rate = recorded.baseline.episodes_per_day
    a_day = "" if rate is None else f"; {_rounded(rate)} episodes a day of all versions"
    click.echo(f"Champion: version {recorded.version} of '{recorded.model}', {recorded.episodes:,} episodes{a_day}.")


def print_plan(version: int, model: str | None, baseline: "Baseline", plan: "Plan") -> None:
    """Print how many episodes each outcome needs, and the next command."""
    rules = plan.rules
    click.echo(
        f"Return {baseline.mean:.1f} +- {baseline.std:.1f}, margin {rules.margin:.3g}, share {100 * plan.share:.3g}%, "
        f"alpha {100 * rules.alpha:.3g}%.\n"
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("outcome", no_wrap=True)
    for title in ("chance", "episodes", "challenger's", *(["days"] if baseline.episodes_per_day else [])):
        table.add_column(title, no_wrap=True, justify="right")
    _add_rows(table, "an equal challenger is promoted", plan.promotion)
    _add_rows(table, "half of the return lost: rolled back", plan.rollback)
    Console().print(table)
    likely = plan.promotion[-1]
    click.echo(f"\nAn experiment without a decision after {likely.episodes:,} episodes is inconclusive.")
    if likely.days is not None and likely.days > _LONG_DAYS:
        click.secho(
            f"At the recorded rate, these take {likely.days:,.0f} days. Twice the margin needs a quarter of them.",
            fg="yellow",
        )
    name = "" if model in {None, TrainConfig.registered_model_name} else f" --name {shlex.quote(str(model))}"
    click.echo(
        "Smaller differences show sooner in the simulator, where both versions play the same seeds. "
        f"Next: python -m pipeline promote {version}{name}"
    )


def _add_rows(table: Table, outcome: str, needs: tuple["Need", ...]) -> None:
    for need in needs:
        days = [] if need.days is None else [f"{need.days:,.1f}"]
        table.add_row(outcome, f"{need.power:.0%}", f"{need.episodes:,}", f"{need.challengers:,}", *days)
        outcome = ""


def _rounded(number: float) -> str:
    return f"{float(f'{number:.3g}'):,.0f}" if number >= 1 else f"{number:.2g}"
