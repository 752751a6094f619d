"""The commands: options -> configuration -> one call -> output."""

from collections.abc import Callable
from dataclasses import Field
from typing import Any, TypeVar

import click

from pipeline.config import SETTINGS, TrainConfig
from pipeline.errors import Interrupted, PipelineError
from serving.console import domain_errors

Command = TypeVar("Command", bound=Callable[..., Any])

one_line_errors = domain_errors(PipelineError, Interrupted)

name_option = click.option(
    "--name", default=TrainConfig.registered_model_name, show_default=True, help="Registered model."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Train policies, judge them, and decide in MLflow's registry which of them is served."""


class _OptionalFloat(click.ParamType["float | None"]):
    """A number, or `auto` for None: MLproject cannot leave a parameter out."""

    name = "float|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        return None if value == "auto" else click.FLOAT.convert(value, param, ctx)


def training_options(command: Command) -> Command:
    """An option for each field of TrainConfig."""
    for setting in reversed(SETTINGS):
        command = _option(setting)(command)
    return command


def _option(setting: "Field[Any]") -> Callable[[Command], Command]:
    optional = setting.default is None
    return click.option(
        "--" + setting.name.strip("_").replace("_", "-"),
        setting.name,
        type=_OptionalFloat() if optional else type(setting.default),
        default="auto" if optional else setting.default,
        show_default=True,
        help=setting.metadata["help"],
    )


@cli.command()
@training_options
@one_line_errors
def train(**settings: Any) -> None:
    """Train PPO until a greedy evaluation reaches the target, and register the best policy.

    The run is tracked in MLflow while it goes on. Ctrl-C and SIGTERM end it KILLED, with nothing registered.
    """
    config = TrainConfig(**settings)
    from pipeline.interruption import interruptible

    with interruptible():
        from pipeline.progress import TrainingProgress
        from pipeline.training_run import train

        with TrainingProgress(config.max_env_steps) as progress:
            trained = train(config, progress)
    uri = f"models:/{trained.name}/{trained.version}"
    click.echo(f"\nRegistered {uri} (run {trained.run_id}): greedy return {trained.evaluation}")
    if not trained.solved:
        click.secho(f"It did not reach the target of {trained.target_return:g} within the budget.", fg="yellow")
    click.echo(f"Next: python -m pipeline promote {trained.version}{_name_argument(trained.name)}")


@cli.command()
@click.argument("model_uri")
@click.option("--episodes", type=click.IntRange(1), default=100, show_default=True, help="Greedy episodes to play.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Episode i is reset with seed + i.")
@one_line_errors
def evaluate(model_uri: str, episodes: int, seed: int) -> None:
    """Play greedy episodes with MODEL_URI, as models:/cartpole-ppo/1, and record them in MLflow."""
    from pipeline.interruption import interruptible

    with interruptible():
        from pipeline.evaluation_run import evaluate

        evaluated = evaluate(model_uri, episodes, seed)
    click.echo(f"models:/{evaluated.name}/{evaluated.version}: greedy return {evaluated.evaluation}")
    click.echo(f"Recorded in run {evaluated.run_id} and on the version.")


@cli.command()
@click.argument("version", type=click.IntRange(1))
@click.option(
    "--stage",
    type=click.Choice(["Staging", "Production", "Archived"]),
    default="Production",
    show_default=True,
    help="Where to.",
)
@name_option
@one_line_errors
def promote(version: int, stage: str, name: str) -> None:
    """Put VERSION into a stage, and archive what stood there."""
    from pipeline.promotion import promote

    promote(name, version, stage)
    click.echo(f"Version {version} of '{name}' is in stage '{stage}'.")
    if stage != "Archived":
        click.echo(f"Next, unless a server runs already: python -m serving run --model-uri models:/{name}/{stage}")


@cli.command()
@name_option
@one_line_errors
def versions(name: str) -> None:
    """List the versions of a registered model."""
    from pipeline.promotion import versions
    from pipeline.tables import versions_table

    versions_table(versions(name))


@cli.command()
@click.option("--mlflow-port", default=5000, show_default=True, help="Of the MLflow server.")
@click.option("--serving-port", default=8000, show_default=True, help="Of the policy server.")
@click.option("--episodes", default=100, show_default=True, help="Episodes to play through HTTP.")
@one_line_errors
def journey(mlflow_port: int, serving_port: int, episodes: int) -> None:
    """Everything on this machine: MLflow, a promoted policy, a server, and a first query (`make run`)."""
    from pipeline.interruption import interruptible
    from pipeline.journey import journey

    with interruptible():
        journey(mlflow_port, serving_port, episodes)


def _name_argument(name: str) -> str:
    return "" if name == TrainConfig.registered_model_name else f" --name {name}"
