"""Prints the expected errors of a command as one line."""

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from serving.errors import ServingError, print_traceback

R = TypeVar("R")


def one_line_errors(command: Callable[..., R]) -> Callable[..., R]:
    """Show a ServingError of a click command in one red line, exit with status 1, and add `--traceback`."""

    @click.option("--traceback", "show_traceback", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapped(*args: Any, show_traceback: bool, **kwargs: Any) -> R:
        try:
            return command(*args, **kwargs)
        except ServingError as error:
            if show_traceback:
                print_traceback(type(error), error, error.__traceback__)
            click.secho(f"Error: {error}", fg="red", err=True)
            sys.exit(1)

    return wrapped
