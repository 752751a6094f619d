"""The options of `serving run` that are generated from `Arguments`, so that each argument is declared once."""

import functools
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from serving.arguments import Arguments

R = TypeVar("R")

METAVARS = {
    "uri": "URI",
    "bytes": "BYTES",
    "s": "SECONDS",
    "autoscaling": "JSON",
    "origin": "ORIGIN",
    "key": "FILE",
    "port": "PORT",
    "modules": "MODULE",
}
"""What an option takes, by the last word of its field's name. Other options show their type."""


class Duration(click.FloatRange):
    """A finite number of seconds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert the text of an option."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return seconds


def split_commas(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the parts of the values of an option that takes lists with commas: a click callback."""
    return tuple(part.strip() for value in values for part in value.split(",") if part.strip())


def option_name(field: str) -> str:
    """Return the option of a field: `refresh_interval_s` becomes `--refresh-interval`."""
    return "--" + field.removesuffix("_s").replace("_", "-")


def argument_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add one option for each field of `Arguments` to a click command, which receives them as `arguments`.

    Invalid and contradictory options raise ClickException, with one line that names the options.
    """

    @functools.wraps(command)
    def wrapped(**options: Any) -> R:
        source = click.get_current_context().get_parameter_source
        values = {name: options.pop(name) for name in Arguments.model_fields}
        # The model supplies defaults. It must know which arguments were given, to find contradictions.
        given = {name: value for name, value in values.items() if source(name) is not ParameterSource.DEFAULT}
        try:
            arguments = Arguments.model_validate(given)
        except ValidationError as error:
            raise click.ClickException(_message(error)) from None
        return command(arguments=arguments, **options)

    for name, field in reversed(Arguments.model_fields.items()):
        wrapped = click.option(
            option_name(name),
            name,
            type=_type(name, field),
            metavar=METAVARS.get(name.rpartition("_")[2]),
            is_flag=field.annotation is bool,
            multiple=field.annotation == tuple[str, ...],
            default=field.default,
            show_default=True,
            help=field.description,
        )(wrapped)
    return wrapped


def _type(name: str, field: FieldInfo) -> Any:
    """Return the click type of a field, with the field's bounds."""
    bounds = {key: bound for rule in field.metadata for key, bound in asdict(rule).items()}
    lowest, highest, is_open = bounds.get("ge", bounds.get("gt")), bounds.get("le"), "gt" in bounds
    if name.endswith(("_dir", "_file")):
        return click.Path(file_okay=name.endswith("_file"), dir_okay=name.endswith("_dir"))
    if get_origin(field.annotation) is Literal:
        return click.Choice(get_args(field.annotation))
    if field.annotation in (int, int | None):
        return click.IntRange(lowest, highest, min_open=is_open)
    if field.annotation is float:
        return click.FloatRange(lowest, min_open=is_open)
    return bool if field.annotation is bool else str


def _message(error: ValidationError) -> str:
    """Return pydantic's messages in one line that names options instead of fields."""
    messages = [
        ": ".join([*map(str, fault["loc"]), fault["msg"].removeprefix("Value error, ")]) for fault in error.errors()
    ]
    return re.sub(
        r"\w+", lambda word: option_name(word[0]) if word[0] in Arguments.model_fields else word[0], "; ".join(messages)
    )
