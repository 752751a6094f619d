"""Prints the expected errors of a command as one line."""

import functools
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import click

from serving.errors import ServingError

R = TypeVar("R")


def domain_errors(*expected: type[BaseException]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Return a decorator for click commands that prints ServingError and the `expected` errors in one red line.

    The command then exits with status 1. The decorator adds the option `--traceback`, which prints the traceback first.
    Use it below `@click.command`, anywhere among the options: `@domain_errors()`, `@domain_errors(PipelineError)`.
    """
    printed: tuple[type[BaseException], ...] = (ServingError, *expected)

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @click.option("--traceback", "show_traceback", is_flag=True, help="Show the traceback of an error.")
        @functools.wraps(command)
        def wrapped(*args: Any, show_traceback: bool, **kwargs: Any) -> R:
            try:
                return command(*args, **kwargs)
            except printed as error:
                if show_traceback:
                    traceback.print_exception(error)
                click.secho(f"Error: {error}", fg="red", err=True)
                sys.exit(1)

        return wrapped

    return decorate
