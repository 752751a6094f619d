"""Options and parameter types that several commands share."""

import functools
import sys
from collections.abc import Callable
from dataclasses import Field
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from pipeline.config import SETTINGS, TrainConfig
from pipeline.errors import Interrupted
from pipeline.signals import interruptible
from serving.errors import ExpectedError, print_traceback

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

seed_option = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of episode i is seed + i."
)


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


class OptionalFile(click.Path):
    """A file, or the empty text for None, because MLproject always passes a value."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert the text of an option."""
        return None if value == "" else super().convert(value, param, ctx)


def training_options(command: Command) -> Command:
    """Add an option for each field of TrainConfig."""
    for setting in reversed(SETTINGS):
        command = _option(setting)(command)
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
    # MLproject passes every switch with a value; on the command line the switch alone means true. Any other option with
    # a flag value, None included, would take a negative number for another option.
    switch: dict[str, Any] = {"flag_value": True} if isinstance(setting.default, bool) else {}
    return click.option(
        option,
        setting.name,
        type=OptionalFloat() if is_optional else type(setting.default),
        default="auto" if is_optional else setting.default,
        is_flag=False,
        show_default=True,
        help=about,
        **switch,
    )


def is_given(context: click.Context, name: str) -> bool:
    """Return whether the user or MLproject gave an option."""
    return context.get_parameter_source(name) != ParameterSource.DEFAULT


def is_changed(context: click.Context, name: str) -> bool:
    """Return whether an option has another value than its default, which MLproject passes for every option."""
    if not is_given(context, name) or not context.params[name]:
        return False
    (option,) = [each for each in context.command.params if each.name == name]
    return bool(context.params[name] != option.process_value(context, option.get_default(context)))
