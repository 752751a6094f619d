"""The command `experiment shadow`."""

import sys

import click

from pipeline.commands.experience import store_errors
from pipeline.commands.options import bounded_requests, registry_option

UNFIT = 3
"""The exit status if the challenger is too slow, or computes numbers that are not finite."""


@click.command()
@click.argument("version", type=click.IntRange(1))
@click.option(
    "--experience", "uri", metavar="URI", required=True, help="Directory or S3 prefix that the servers record to."
)
@click.option(
    "--model", "--name", "model", metavar="NAME", help="Registered model.  [default: the only one that is recorded]"
)
@click.option(
    "--decisions",
    type=click.IntRange(1),
    default=100_000,
    show_default=True,
    help="Newest decisions of the versions that are served now, at most.",
)
@click.option(
    "--max-latency-ms",
    type=click.FloatRange(0, min_open=True),
    default=100.0,
    show_default=True,
    help="Limit for the 99th percentile of the time that VERSION takes for a batch, on this machine.",
)
@registry_option
@bounded_requests
@store_errors
def shadow(version: int, uri: str, model: str | None, decisions: int, max_latency_ms: float) -> None:
    """Compute recorded decisions with VERSION, and compare its actions with those that were served.

    Clients notice nothing. It shows whether VERSION fails or is slow on real observations, and how much it differs from
    what is served, but not whether it is better: no return follows from actions that were not taken. The result is
    logged to MLflow. The exit status is 3 if VERSION is too slow, fails, or computes numbers that are not finite.
    """
    from pipeline.commands.experiment.shadow_output import print_shadow
    from pipeline.experience.progress import StageProgress
    from pipeline.experience.raw import choose_model, open_experience
    from pipeline.experiment.shadow.report import report
    from pipeline.experiment.shadow.shadow import prepare, shadow
    from pipeline.tracking import run as tracking
    from serving.registry.tracking import check_tracking_server

    check_tracking_server()
    store = open_experience(uri)
    challenger, selection = prepare(store, choose_model(store, model), version, decisions)
    params = {"model_uri": challenger.pinned_uri, "decisions": selection.decisions, "max_latency_ms": max_latency_ms}
    with tracking.run(f"shadow {challenger.name} {version}", params) as run_id:
        with StageProgress() as progress:
            progress.stage("compute decisions", selection.decisions)
            done = shadow(store, challenger, selection, max_latency_ms, progress.advance)
        report(run_id, done)
    print_shadow(done, run_id)
    if not (done.is_finite and done.is_fast):
        sys.exit(UNFIT)
