"""The commands `experiment start`, `experiment run`, `experiment status` and `experiment stop`."""

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.experiment.options import detach_option, every_option, experiment_options, start_options
from pipeline.commands.experiment.status_output import command_line, print_ended, print_started, print_status
from pipeline.commands.options import (
    bounded_requests,
    name_option,
    one_line_errors,
    registry_option,
    signer_of,
    signing_key_option,
    target_options,
)
from pipeline.errors import Interrupted

if TYPE_CHECKING:
    from pipeline.experiment.live.start import StartOptions
    from pipeline.experiment.live.state import Live
    from pipeline.registry.gate import Gate
    from pipeline.registry.signing import Signer
    from pipeline.registry.target import Target

experience_option = click.option(
    "--experience", metavar="URI", required=True, help="Directory or S3 prefix that the servers record to."
)


@click.command()
@click.argument("version", type=click.IntRange(1))
@target_options("Production", "Staging")
@name_option
@experience_option
@experiment_options
@every_option
@detach_option
@signing_key_option
@registry_option
@one_line_errors
@bounded_requests
def start(
    version: int,
    stage: str,
    alias: str | None,
    name: str,
    every_s: float,
    signing_key: str | None,
    *,
    detach: bool,
    **options: Any,
) -> None:
    """Let VERSION, the challenger, act in a share of the live episodes, and promote it or roll it back.

    Servers that record experience assign the episodes. The command watches the returns that clients report, raises the
    share, and decides. Interrupted, it leaves the experiment running; `experiment run` continues.
    """
    from pipeline.registry.target import Target

    target, signer = Target.of(name, stage, alias), signer_of(signing_key)
    begin(target, version, start_options(**options))
    watch_unless(target, signer, None if detach else every_s)


@click.command()
@target_options("Production", "Staging")
@name_option
@every_option
@signing_key_option
@registry_option
@one_line_errors
@bounded_requests
def run(stage: str, alias: str | None, name: str, every_s: float, signing_key: str | None) -> None:
    """Watch the running experiment and decide it: after `start --detach`, an interruption, or a kill.

    Several may run at once, such as on two machines: one acts, the others wait.
    """
    from pipeline.registry.target import Target

    watch(Target.of(name, stage, alias), signer_of(signing_key), every_s)


@click.command()
@target_options("Production", "Staging")
@name_option
@click.option("--watch", "watched", is_flag=True, help="Show it again every few seconds, until it has ended.")
@every_option
@registry_option
@one_line_errors
@bounded_requests
def status(stage: str, alias: str | None, name: str, every_s: float, *, watched: bool) -> None:
    """Show the experiment on a stage or alias: episodes, returns, bounds, and what comes next.

    The figures are computed from what is recorded now. Nothing is written.
    """
    from pipeline.experiment.live.controller import Observer
    from pipeline.experiment.live.lease import Lease
    from pipeline.experiment.live.state import find
    from pipeline.registry.target import Target
    from serving.registry.tracking import check_registry

    check_registry()
    target, observer = Target.of(name, stage, alias), Observer()
    while True:
        live = find(target)
        if live is None or not live.is_running:
            print_ended(target, live)
            return
        print_status(live, observer.figures(live, time.time()), observer.damaged, Lease(live).holder())
        if not watched:
            return
        time.sleep(every_s)
        click.echo()


@click.command()
@target_options("Production", "Staging")
@name_option
@registry_option
@one_line_errors
@bounded_requests
def stop(stage: str, alias: str | None, name: str) -> None:
    """End the running experiment without a decision. The champion answers all episodes from then on."""
    from pipeline.experiment.live.start import stop
    from pipeline.registry.target import Target

    target = Target.of(name, stage, alias)
    print_ended(target, stop(target))


def begin(target: "Target", version: int, options: "StartOptions") -> None:
    """Start an experiment, and print what was started."""
    from pipeline.experiment.live.start import start

    print_started(start(target, version, options))


def promote_with_canary(
    target: "Target",
    version: int,
    gate: "Gate",
    options: "StartOptions",
    signer: "Signer | None",
    every_s: float | None,
) -> None:
    """Let a version pass the gate, then an experiment, which promotes it; only start that without `every_s`.

    The exit status is 1 if the experiment ends otherwise.
    """
    from pipeline.experiment.live.settings import PROMOTED
    from pipeline.experiment.live.start import check
    from pipeline.registry.promotion import pass_gate
    from pipeline.tables import verdict_table

    check(target, version, options)  # before the gate, which takes minutes
    verdict = pass_gate(target, version, gate, signer)
    if verdict is not None:
        verdict_table(verdict)
    begin(target, version, options)
    ended = watch_unless(target, signer, every_s)
    if ended is not None and ended.experiment.decision != PROMOTED:
        sys.exit(1)


def watch_unless(target: "Target", signer: "Signer | None", every_s: float | None) -> "Live | None":
    """Watch an experiment; without `every_s` only print how to."""
    if every_s is not None:
        return watch(target, signer, every_s)
    click.echo(f"Next: {command_line(target, 'run')}")
    return None


def watch(target: "Target", signer: "Signer | None", every_s: float) -> "Live":
    """Run a controller to the end of the experiment; print how to continue if it is interrupted."""
    from pipeline.experiment.live.controller import Controller

    click.echo(f"Watching until the experiment ends. In another terminal: {command_line(target, 'status')}")
    try:
        ended = Controller(target, signer, click.echo, every_s).run()
    except Interrupted:
        click.secho(
            "The experiment goes on without a controller: the share stays as it is, and nobody decides. "
            f"Continue: {command_line(target, 'run')}",
            fg="yellow",
        )
        click.echo(f"Or end it: {command_line(target, 'stop')}")
        raise
    print_ended(target, ended)
    return ended
