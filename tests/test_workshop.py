"""Commands that tests run in their own process leave nothing of it changed for the next test."""

import importlib
import sys
from pathlib import Path

import click


@click.command()
def importing() -> None:
    sys.path.insert(0, str(Path.cwd()))
    importlib.import_module("corridor_of_a_test")


def test_a_command_in_this_process_leaves_no_module_of_its_directory(workshop):
    (workshop.directory / "corridor_of_a_test.py").touch()
    before = list(sys.path)
    done = workshop.invoke(importing)
    assert done.exit_code == 0, done.output
    assert "corridor_of_a_test" not in sys.modules
    assert sys.path == before
