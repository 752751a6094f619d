"""Options, parameter types and the kind of group that several commands share."""

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from pipeline.config import BY_ENVIRONMENT, BY_MACHINE, SETTINGS, TrainConfig
from pipeline.errors import Interrupted
from pipeline.learning.settings import SETTINGS as LEARNING_SETTINGS
from pipeline.signals import interruptible
from serving.errors import ExpectedError, print_traceback

if TYPE_CHECKING:
    from pipeline.registry.signing import Signer

Command = TypeVar("Command", bound=Callable[..., Any])

name_option = click.option(
    "--name", default=TrainConfig.registered_model_name, show_default=True, help="Registered model."
)

config_file_option = click.option(
    "--config",
    "file",
    type=click.Path(exists=True, dir_okay=False),
    help="YAML file of training settings; options override it.",
)

tuned_option = click.option(
    "--tuned",
    type=bool,
    default=True,
    show_default=True,
    help="Whether to begin with the file of pipeline/tuned for the environment's id, if there is one.",
)

seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of episode i is seed + i."
)

signing_key_option = click.option(
    "--signing-key",
    metavar="FILE",
    help="PEM file of an ed25519 private key, which signs the version.",
)

# As for TrainConfig's switches, `mlflow run` passes a value.
trust_checkpoint_option = click.option(
    "--trust-checkpoint",
    type=bool,
    is_flag=False,
    flag_value=True,
    default=False,
    help="Read a checkpoint without recorded digests, which an earlier release made. Reading it runs the code in it.",
)


class InOrder(click.Group):
    """A group whose `--help` lists its commands in the order of their definition, each with its first sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the names in the order of their definition."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands."""
        write_commands("Commands", self.commands.values(), formatter)


def write_commands(title: str, commands: Iterable[click.Command], formatter: click.HelpFormatter) -> None:
    """Write a list of commands with their first sentences, which click alone would cut to fit one line."""
    with formatter.section(title):
        formatter.write_dl([(str(each.name), each.get_short_help_str(limit=sys.maxsize)) for each in commands])


def one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Show an error or the interruption of a command in one red line, exit with status 1, and add `--traceback`."""

    @click.option("--traceback", "show_traceback", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapped(*args: Any, show_traceback: bool, **kwargs: Any) -> None:
        try:
            with interruptible():
                command(*args, **kwargs)
        except (Exception, Interrupted) as raised:
            error = raised if isinstance(raised, ExpectedError | Interrupted) else _of_mlflow(raised)
            if error is None:
                raise
            if show_traceback:
                print_traceback(type(error), error, error.__traceback__)
            click.secho(f"Error: {error}", fg="red", err=True)
            sys.exit(1)

    return wrapped


def signer_of(file: str | None) -> "Signer | None":
    """Return the signer of `--signing-key`, None without it. Raises SigningKeyInvalid."""
    if not file:
        return None
    from pipeline.registry.signing import Signer

    return Signer.read(file)


def registry_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--registry-uri`, which sets MLflow's variable for this process and those that it starts."""

    @click.option(
        "--registry-uri",
        metavar="URI",
        envvar="MLFLOW_REGISTRY_URI",
        show_envvar=True,
        help="MLflow's model registry.  [default: the tracking URI]",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, registry_uri: str | None, **kwargs: Any) -> None:
        from serving.registry import tracking

        tracking.use(None, registry_uri or None)
        command(*args, **kwargs)

    return wrapped


def bounded_requests(command: Callable[..., None]) -> Callable[..., None]:
    """Bound the time for which a command waits for a request to MLflow, unless the user has set it."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        from serving.registry import tracking

        tracking.bound_requests(tracking.COMMAND_BOUNDS)
        command(*args, **kwargs)

    return wrapped


def _of_mlflow(error: Exception) -> ExpectedError | None:
    """Return the one-line error for an exception of MLflow, wherever it was raised; None for any other."""
    from serving.registry.mlflow_api import as_expected

    expected = as_expected(error)
    if expected is not None:
        expected.__cause__ = error
    return expected


def target_options(*stages: str) -> Callable[[Command], Command]:
    """Return a decorator that adds `--stage`, one of these stages, and `--alias`, which overrides it."""

    def decorate(command: Command) -> Command:
        alias = click.option("--alias", help="Alias instead of a stage, such as champion.")
        stage = click.option("--stage", type=click.Choice(stages), default=stages[0], show_default=True, help="Stage.")
        return stage(alias(command))

    return decorate


class OptionalFloat(click.ParamType["float | None"]):
    """A number, or `auto` for None, because MLproject always passes a value."""

    name = "float|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Convert the text of an option."""
        return None if value == "auto" else click.FLOAT.convert(value, param, ctx)


class NumberOrAuto(click.ParamType["float | str"]):
    """A number of a type, or `auto`."""

    def __init__(self, number: type[int] | type[float]) -> None:
        self._number = click.INT if number is int else click.FLOAT
        self.name = f"{self._number.name}|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Convert the text of an option."""
        return "auto" if value == "auto" else self._number.convert(value, param, ctx)


#: Settings of a command with `training_options`. `mlflow run -P max_env_steps=1` passes `--max_env_steps 1`.
AS_MLFLOW_SPELLS = {"token_normalize_func": lambda name: name.rstrip("_").replace("_", "-")}


def training_options(command: Command) -> Command:
    """Add an option for each field of TrainConfig; `given` returns those that the user gave."""
    for setting in reversed(SETTINGS):
        command = _option(setting)(command)
    return command


def experience_options(command: Command) -> Command:
    """Add an option for each field of LearningSettings; `given` returns those that the user gave."""
    for setting in reversed(LEARNING_SETTINGS):
        choices = setting.metadata["choices"]
        switch: dict[str, Any] = {"flag_value": True} if isinstance(setting.default, bool) else {}
        command = click.option(
            "--" + setting.name.replace("_", "-"),
            setting.name,
            type=click.Choice(choices) if choices else type(setting.default),
            default=setting.default,
            is_flag=False,
            show_default=setting.default != "",
            help=setting.metadata["help"],
            **switch,
        )(command)
    return command


def _option(setting: "Field[Any]") -> Callable[[Command], Command]:
    option = "--" + setting.name.strip("_").replace("_", "-")
    about = setting.metadata["help"]
    if setting.metadata["repeatable"]:
        return click.option(
            option,
            setting.name,
            multiple=True,
            default=[setting.default],
            callback=lambda _context, _option, values: ",".join(values),
            show_default=setting.default,
            help=about,
        )
    is_optional = setting.default is None
    kind: Any = type(setting.default)
    is_chosen = setting.name in BY_ENVIRONMENT
    is_automatic = setting.name in BY_MACHINE
    # MLflow passes every switch with a value; on the command line the switch alone means true. Any other option with
    # a flag value, None included, would take a negative number for another option.
    switch: dict[str, Any] = {"flag_value": True} if isinstance(setting.default, bool) else {}
    return click.option(
        option,
        setting.name,
        type=OptionalFloat() if is_optional else NumberOrAuto(kind) if is_automatic else kind,
        default=None if is_chosen else "auto" if is_optional or is_automatic else setting.default,
        is_flag=False,
        show_default="by environment" if is_chosen else True,
        help=about,
        **switch,
    )


def given(context: click.Context, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the options of a command that the user gave, by name."""
    return {
        name: value for name, value in settings.items() if context.get_parameter_source(name) != ParameterSource.DEFAULT
    }
