"""The commands `experience export` and `experience report`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.experience import model_option, store_errors, uri_argument
from pipeline.commands.options import bounded_requests, registry_option

if TYPE_CHECKING:
    from pipeline.experience.exports.episodes import Counts
    from pipeline.experience.online.report import Reported
    from serving.experience.store import Store

LIBRARIES = {"rllib": "RLlib", "minari": "Minari", "d3rlpy": "d3rlpy"}
WATCH_S = 60.0
"""The time between two reports of `--watch`."""

_MAX_VERSIONS = 20
"""The newest versions that `report` lists."""


class VersionList(click.ParamType["frozenset[int]"]):
    """Numbers of versions, separated by commas."""

    name = "versions"

    def convert(
        self,
        value: str | frozenset[int],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> frozenset[int]:
        """Convert the text of an option."""
        if isinstance(value, frozenset):
            return value
        numbers = [part.strip() for part in value.split(",")]
        if not all(part.isascii() and part.isdecimal() and 0 < int(part) < 2**31 for part in numbers):
            self.fail(f"{value!r} is no list of version numbers, such as 3,4", param, ctx)
        return frozenset(map(int, numbers))


@click.command()
@uri_argument
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--to", "library", type=click.Choice(list(LIBRARIES)), required=True, help="Library to export for.")
@model_option
@click.option("--versions", type=VersionList(), metavar="N,...", help="Versions to export.  [default: all]")
@click.option(
    "--unreported",
    type=click.Choice(["keep", "drop"]),
    help="What becomes of episodes with unreported rewards.  [default: an error]",
)
@registry_option
@bounded_requests
@store_errors
def export(
    uri: str,
    directory: Path,
    library: str,
    model: str | None,
    versions: frozenset[int] | None,
    unreported: str | None,
) -> None:
    """Write whole episodes into DIRECTORY, which must not exist, in the format of another library.

    Episodes are as of the last compaction; those that lack decisions are left out. The registry has to answer: the
    bundle of the newest version says what its observations and actions are.
    """
    from pipeline.experience.exports.export import export, left_out
    from pipeline.experience.progress import StageProgress
    from pipeline.experience.raw import choose_model, open_experience
    from pipeline.experience.whole_episodes import WholeEpisodes

    store = open_experience(uri)
    whole = WholeEpisodes.open(store, choose_model(store, model), max(versions) if versions else None)
    with StageProgress() as progress:
        done = export(
            whole,
            library,
            directory,
            versions=versions,
            unreported=unreported,
            begin=lambda episodes: progress.stage(f"write {episodes:,} episodes", episodes),
            advance=progress.advance,
        )
    _print_exported(directory, LIBRARIES[library], done.counts)
    for phrase in left_out(done.counts):
        click.echo(f"Left out: {phrase}.")
    click.echo(f"Next, in {LIBRARIES[library]}: {done.next_step}")


def _print_exported(directory: Path, library: str, counts: "Counts") -> None:
    versions = ", ".join(map(str, sorted(counts.versions)))
    click.echo(
        f"Exported {_count(counts.episodes, 'episode')} with {_count(counts.steps, 'step')} of version {versions} for "
        f"{library}: {directory}"
    )
    if counts.shortened:
        click.echo(
            f"{_count(counts.shortened, 'truncated episode')} one step shorter: nobody reported the final observation."
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@click.command()
@uri_argument
@model_option
@click.option(
    "--interval-s",
    type=click.IntRange(1),
    default=3600,
    show_default=True,
    help="Seconds that one point of the metrics covers.",
)
@click.option("--watch", is_flag=True, help="Report every minute until Ctrl-C.")
@registry_option
@bounded_requests
@store_errors
def report(uri: str, model: str | None, interval_s: int, *, watch: bool) -> None:
    """Log the return of each version in the episodes that clients reported to MLflow: metrics by time, and a chart.

    Episodes are as of the last compaction. The description of the registered model leads to the run with the chart, and
    each version has the tags online.return and online.episodes. Repeating the command adds nothing twice.
    """
    from pipeline.experience.raw import choose_model, open_experience

    store = open_experience(uri)
    chosen = choose_model(store, model)
    if watch:
        _watch(store, chosen, interval_s)
    else:
        _report(store, chosen, interval_s)


def _report(store: "Store", model: str, interval_s: int) -> None:
    from pipeline.experience.online.report import report

    _print_reported(model, report(store, model, interval_s))


def _watch(store: "Store", model: str, interval_s: int) -> None:
    """Report every minute. A failure is shown, and the report tried again."""
    from mlflow.exceptions import MlflowException

    from serving.errors import ExpectedError
    from serving.registry.mlflow_api import as_expected

    while True:
        try:
            _report(store, model, interval_s)
        except (ExpectedError, MlflowException) as error:
            expected = error if isinstance(error, ExpectedError) else as_expected(error)
            click.secho(f"{expected or error} Trying again in {WATCH_S:.0f} s.", fg="yellow", err=True)
        time.sleep(WATCH_S)


def _print_reported(model: str, reported: "Reported") -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ("version", "episodes", "mean return", "mean length", "new points")
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for version, figures in sorted(reported.online.totals.items())[-_MAX_VERSIONS:]:
        new = reported.new_windows.get(version)
        cells = (version, f"{figures.episodes:,}", f"{figures.return_mean:.1f}", f"{figures.length_mean:.1f}")
        table.add_row(*map(str, cells), "not registered" if new is None else str(new))
    Console().print(table)
    if reported.online.unreported:
        click.echo(f"Not counted: {_count(reported.online.unreported, 'episode')} whose end nobody reported.")
    if reported.online.mixed:
        click.echo(f"Not counted: {_count(reported.online.mixed, 'episode')} in which several versions decided.")
    if reported.description_full:
        click.secho("The description of the registered model is too long for a link to the run.", fg="yellow")
    click.echo(
        f"Logged in run {reported.run_id}: in MLflow 'online return of {model}' of experiment {reported.experiment_id}."
    )
