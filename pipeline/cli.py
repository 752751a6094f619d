"""The command line: a group of the commands."""

import click

from pipeline.commands.evaluate import evaluate, verify
from pipeline.commands.journey import journey
from pipeline.commands.registry import history, promote, rollback, versions
from pipeline.commands.train import train, tune
from serving.client.proxies import bypass_loopback


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Train and evaluate policies, and decide in MLflow's registry which of them is served."""
    bypass_loopback()


for command in (train, tune, evaluate, verify, promote, rollback, history, versions, journey):
    cli.add_command(command)
