"""What commands do with their process: print expected errors as one line, and import in the background."""

import contextlib
import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def importing(*modules: str) -> Iterator[None]:
    """Import modules in a thread beside the block, and wait for it: an import that the end of Python breaks fails.

    If the block raises, those that are still to come are left out.
    """
    failed = threading.Event()

    def load() -> None:
        for module in modules:
            if failed.is_set():
                return
            with contextlib.suppress(Exception):  # the main thread raises it when it needs the module
                importlib.import_module(module)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield
    except BaseException:
        failed.set()
        raise
    finally:
        thread.join()
