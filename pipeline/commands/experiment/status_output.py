"""Prints experiments: what was started, how they stand, and how they ended."""

import math
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from pipeline.config import TrainConfig

if TYPE_CHECKING:
    from pipeline.experiment.live.figures import Arm, Figures
    from pipeline.experiment.live.start import Started
    from pipeline.experiment.live.state import Live
    from pipeline.registry.target import Target

_UNITS = ((86_400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))
_SECONDS_PER_DAY = 86_400.0


def command_line(target: "Target", command: str) -> str:
    """Return a command of experiments with the options that name a target."""
    return _command_line(target, f"experiment {command}")


def _command_line(target: "Target", command: str) -> str:
    name = "" if target.model == TrainConfig.registered_model_name else f" --name {shlex.quote(target.model)}"
    where = f" --alias {target.name}" if target.is_alias else "" if target.name == "Production" else " --stage Staging"
    return f"python -m pipeline {command}{where}{name}"


def print_started(started: "Started") -> None:
    """Print what was started, and how long it may take."""
    live, rules = started.live, started.live.settings.rules
    at = datetime.fromtimestamp(live.experiment.shares[0].start_s, UTC).strftime("%H:%M:%S")
    click.echo(
        f"Experiment {live.experiment.id}: version {live.experiment.challenger} against "
        f"{live.experiment.champion}, the {live.target} of '{live.target.model}', "
        f"share {live.experiment.shares[0].share:g} from {at} UTC. MLflow run {live.settings.run_id}."
    )
    baseline = started.baseline
    click.echo(
        f"The champion's return is {baseline.mean:.1f} +- {baseline.std:.1f}. Promoted if the difference is above "
        f"-{rules.margin:.3g}, rolled back if it is below 0, inconclusive after {rules.budget:,} episodes."
    )
    longest_s, rate = live.experiment.expires_s - live.settings.started_s, baseline.episodes_per_day
    if rate and rules.budget / rate * _SECONDS_PER_DAY > longest_s:
        click.secho(
            f"At the recorded rate, these take {rules.budget / rate:,.1f} days; the experiment expires after "
            f"{longest_s / _SECONDS_PER_DAY:.1f}. A larger margin needs fewer.",
            fg="yellow",
        )


def print_status(live: "Live", found: "Figures", damaged: Sequence[str], controller: str | None) -> None:
    """Print how an experiment stands. `controller` is the host and process that decides, None without one."""
    experiment, rules = live.experiment, live.settings.rules
    click.echo(
        f"Experiment {experiment.id} on the {live.target} of '{live.target.model}': version {experiment.challenger} "
        f"against {experiment.champion}, for {_duration(found.at_s - live.settings.started_s)}. "
        f"MLflow run {live.settings.run_id}."
    )
    table = Table("", "champion", "challenger", box=None, header_style="bold", pad_edge=False)
    columns = [_arm(each, version) for each, version in _arms(live, found)]
    for title, *row in zip(("version", "episodes", "settled", "reported", "mean return"), *columns, strict=True):
        table.add_row(title, *row)
    table.add_row("answered by it", "", "-" if math.isnan(found.served) else f"{found.served:.0%}")
    Console().print(table)
    click.echo(
        f"Share {found.share:g} of {', '.join(f'{share:g}' for share in live.settings.shares)}. "
        f"Difference {_number(found.difference)}, bounds {_number(found.lower)} and {_number(found.upper)}: promoted "
        f"if the first is above -{rules.margin:.3g}, rolled back if the second is below 0."
    )
    limit = -math.log10(rules.ratio_alpha)
    click.echo(
        f"Sample ratio: 10^{found.ratio / math.log(10):.1f}, blocked from 10^{limit:g} on. "
        f"{found.settled:,} of {rules.budget:,} episodes; {_duration(experiment.expires_s - found.at_s)} left."
    )
    if found.clipped:
        click.secho(f"{found.clipped:,} returns are outside the bounds, and count as the nearest one.", fg="yellow")
    if damaged:
        click.secho(f"Left out, because they are damaged: {', '.join(damaged[:3])}", fg="yellow")
    if controller is None:
        run = command_line(live.target, "run")
        click.secho(f"No controller runs, so nobody raises the share or decides. Run one: {run}", fg="yellow")
    click.echo(f"Next: {next_step(live, found)}")


def next_step(live: "Live", found: "Figures") -> str:
    """Return what happens next, in words."""
    from pipeline.experiment.live.controller import reason
    from pipeline.experiment.statistics.decision import Decision

    if found.decision != Decision.CONTINUE:
        return f"{found.decision.name.lower().replace('_', ' ')}: {reason(live, found)}."
    if found.at_s >= live.experiment.expires_s:
        return "it has expired, and ends when the outcomes of its last episodes are known."
    if found.at_s < live.experiment.shares[-1].start_s:
        return f"share {live.experiment.shares[-1].share:g} begins in a few seconds."
    if not found.champion.episodes:
        return "no episodes are recorded yet. Clients must name their episodes, and servers record them."
    return _awaited(live, found)


def _awaited(live: "Live", found: "Figures") -> str:
    """Return what a decision or the next share waits for, while episodes come in."""
    from pipeline.experiment.live.figures import SERVED

    if found.settled_served < SERVED:
        return (
            f"the challenger began only {found.settled_served:.0%} of its settled episodes, so it is not promoted and "
            "the share does not rise until it has begun more of them."
        )
    if live.next_share is None:
        return "more episodes, until a bound decides or the budget is used up."
    if found.shows_harm:
        return f"the challenger looks worse, so the share does not rise to {live.next_share:g} until that has changed."
    missing = max(live.settings.step_episodes - found.settled_at_share, 0)
    return f"share {live.next_share:g} after {missing:,} more settled episodes of the challenger."


def print_ended(target: "Target", live: "Live | None") -> None:
    """Print how the last experiment on a target ended."""
    if live is None:
        click.echo(f"There has been no experiment on the {target} of '{target.model}'.")
        return
    experiment = live.experiment
    color = {"promoted": "green", "rolled back": "yellow"}.get(str(experiment.decision))
    why = f": {live.settings.why}" if live.settings.why else ""
    click.secho(
        f"Experiment {experiment.id}, version {experiment.challenger} against {experiment.champion}: "
        f"{experiment.decision}{why}.",
        fg=color,
    )
    click.echo(f"MLflow run {live.settings.run_id}.")
    if live.is_open:
        click.echo(f"What follows from it is not finished. Next: {command_line(target, 'run')}")
    elif experiment.decision == "promoted":
        click.echo(f"Undo it: {_command_line(target, 'rollback')}")
    else:
        uri = shlex.quote(live.settings.experience)
        version = "VERSION" if experiment.decision == "rolled back" else experiment.challenger
        again = command_line(target, f"start {version} --experience {uri}")
        click.echo(f"Another one: {again}")


def _arms(live: "Live", found: "Figures") -> list[tuple["Arm", int]]:
    return [(found.champion, live.experiment.champion), (found.challenger, live.experiment.challenger)]


def _arm(arm: "Arm", version: int) -> tuple[str, ...]:
    reported = f"{arm.reported / arm.settled:.1%}" if arm.settled else "-"
    mean = f"{arm.return_mean:.1f}" if arm.settled else "-"
    return str(version), f"{arm.episodes:,}", f"{arm.settled:,}", reported, mean


def _number(number: float) -> str:
    return f"{number:+.1f}" if math.isfinite(number) else "unknown"


def _duration(seconds: float) -> str:
    length, unit = next((each for each in _UNITS if seconds >= 2 * each[0]), _UNITS[-1])
    return f"{max(seconds, 0) / length:.0f} {unit}"
