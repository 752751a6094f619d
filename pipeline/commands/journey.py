"""The command `journey`, which `make run` calls."""

import click

from pipeline.commands.options import one_line_errors


@click.command()
@click.option("--mlflow-port", default=5000, show_default=True, help="Port of the MLflow server.")
@click.option("--serving-port", default=8000, show_default=True, help="Port of the policy server.")
@click.option("--episodes", default=100, show_default=True, help="Episodes to play through HTTP.")
@one_line_errors
def journey(mlflow_port: int, serving_port: int, episodes: int) -> None:
    """Start MLflow, train and promote a policy, serve it, and query it, all on this machine (`make run`)."""
    from pipeline.journey import journey

    journey(mlflow_port, serving_port, episodes)
