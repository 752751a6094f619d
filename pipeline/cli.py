"""The command line: a group of the commands."""

import itertools
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
from pipeline.commands.options import InOrder, write_commands
from pipeline.commands.registry import history, promote, rollback, sign, versions
from pipeline.commands.train import train, tune
from serving.client.proxies import bypass_loopback
from serving.errors import redacted

SECTIONS = {
    "Train": (train, tune),
    "Evaluate and verify": (evaluate, verify),
    "Promote": (promote, rollback, history, versions, sign),
    "Learn from live traffic": (experience, experiment, ope, drift),
    "Run everything": (journey,),
}
"""The commands, in the order in which `--help` and the reference list them."""


class Sections(InOrder):
    """The group of all commands; `--help` lists them by section."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write one list of commands per section."""
        for title, commands in SECTIONS.items():
            write_commands(title, commands, formatter)


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Train and evaluate policies, and decide in MLflow's registry which of them is served."""
    bypass_loopback()
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if redacted(uri) != uri:
        # MLflow prints links to a run when it ends, with the credentials of its URI.
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


for command in itertools.chain.from_iterable(SECTIONS.values()):
    cli.add_command(command)

for command in (export, report):
    experience.add_command(command)

for command in (start, run, status, stop, shadow):
    experiment.add_command(command)
