"""The command `drift`."""

import sys
from pathlib import Path

import click

from pipeline.commands.experience import model_option, store_errors, uri_argument
from pipeline.commands.options import bounded_requests, registry_option

ALARM = 3
"""The exit status if the observations have drifted."""


def _check_metrics_file(_context: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    """Return the file. Raises BadParameter for one that node_exporter would not read."""
    if file is not None and file.suffix != ".prom":
        raise click.BadParameter(f"'{file}' does not end with .prom; node_exporter reads no other files.")
    return file


@click.command()
@uri_argument
@model_option
@click.option("--version", type=click.IntRange(1), help="Version.  [default: that of the latest episode]")
@click.option(
    "--episodes",
    type=click.IntRange(2, 10_000),
    default=1000,
    show_default=True,
    help="Newest episodes of the version to compare, at most.",
)
@click.option(
    "--window-hours",
    type=click.FloatRange(0, min_open=True),
    help="Compare only episodes that ended within this time before the newest one.  [default: any]",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0.001, 0.2),
    default=0.001,
    show_default=True,
    help="Probability of a false alarm, over all dimensions together.",
)
@click.option(
    "--play",
    "played",
    type=click.IntRange(2, 10_000),
    help="Greedy episodes to play for the comparison, in place of the version's reference.json.",
)
@click.option(
    "--metrics-file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_check_metrics_file,
    help="File *.prom for the textfile collector of Prometheus' node_exporter, to write ray_policy_drift to.",
)
@registry_option
@bounded_requests
@store_errors
def drift(
    uri: str,
    model: str | None,
    version: int | None,
    episodes: int,
    window_hours: float | None,
    alpha: float,
    played: int | None,
    metrics_file: Path | None,
) -> None:
    """Compare the observations of live episodes with those of the version's final evaluation.

    Each dimension is compared in all steps and in the first step of each episode, by the population stability index and
    the Wasserstein distance. Episodes are as of the last compaction. The result is logged to MLflow. The exit status is
    3 if the observations have drifted; nothing else happens then.
    """
    from pipeline.commands.drift.output import print_drift
    from pipeline.drift.live import Selection, latest_version
    from pipeline.drift.measure import measure
    from pipeline.drift.prometheus import write_metric
    from pipeline.drift.report import report
    from pipeline.experience.progress import StageProgress
    from pipeline.experience.raw import choose_model, open_experience
    from pipeline.experience.whole_episodes import WholeEpisodes

    store = open_experience(uri)
    whole = WholeEpisodes.open(store, choose_model(store, model), version)
    selection = Selection(version or latest_version(whole), episodes, window_hours)
    with StageProgress() as progress:
        found = measure(whole, selection, alpha, played, progress.stage, progress.advance)
    if metrics_file is not None:
        write_metric(metrics_file, found.model, found.version, found.comparison.ratio)
    print_drift(found, report(found))
    if found.comparison.alarms:
        sys.exit(ALARM)
