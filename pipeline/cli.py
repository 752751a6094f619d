"""The command line: a group of the commands."""

import os

import click

from pipeline.commands.drift.drift import drift
from pipeline.commands.evaluate import evaluate, verify
from pipeline.commands.experience import experience
from pipeline.commands.experience_results import export, report
from pipeline.commands.experiment.live import run, start, status, stop
from pipeline.commands.experiment.plan import experiment
from pipeline.commands.experiment.shadow import shadow
from pipeline.commands.journey import journey
from pipeline.commands.ope.command import ope
from pipeline.commands.registry import history, promote, rollback, sign, versions
from pipeline.commands.train import train, tune
from serving.client.proxies import bypass_loopback
from serving.errors import redacted


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Train and evaluate policies, and decide in MLflow's registry which of them is served."""
    bypass_loopback()
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if redacted(uri) != uri:
        # MLflow prints links to a run when it ends, with the credentials of its URI.
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


for command in (
    train,
    tune,
    evaluate,
    verify,
    promote,
    sign,
    rollback,
    history,
    versions,
    experience,
    drift,
    experiment,
    ope,
    journey,
):
    cli.add_command(command)

for command in (export, report):
    experience.add_command(command)

for command in (start, run, status, stop, shadow):
    experiment.add_command(command)
