"""Errors and interruptions of a command are one line, and the exit status is 1."""

import dataclasses
import os
import signal
from unittest import mock

import click
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.commands.options import one_line_errors, registry_option
from pipeline.commands.registry import promote
from pipeline.errors import InvalidConfig
from pipeline.registry.gate import Gate


def run(body, *arguments):
    command = click.command()(one_line_errors(body))
    return CliRunner().invoke(command, arguments)


def fail():
    raise InvalidConfig("lr", 0.0, "more than 0")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (fail, "Error: lr is 0.0, expected more than 0.\n"),
        (lambda: signal.raise_signal(signal.SIGTERM), "Error: Interrupted by SIGTERM.\n"),
    ],
)
def test_an_error_or_a_signal_ends_the_command_with_one_line(body, message):
    done = run(body)
    assert (done.exit_code, done.output) == (1, message)


def test_with_traceback_the_line_follows_the_traceback():
    done = run(fail, "--traceback")
    assert done.output.startswith("Traceback (most recent call last):")
    assert done.output.endswith("Error: lr is 0.0, expected more than 0.\n")


def test_the_defaults_of_promote_are_those_of_the_gate():
    """`train --promote` uses the ones, `promote` the others; the command line must not import NumPy."""
    given = {option.name: option.get_default(click.Context(promote)) for option in promote.params}
    given["threshold"] = None if given["threshold"] == "auto" else given["threshold"]
    given["second"] = None  # --ope has no default
    assert {each.name: given[each.name] for each in dataclasses.fields(Gate)} == dataclasses.asdict(Gate())


def test_the_options_of_promote_reach_the_gate(monkeypatch):
    gates = []
    monkeypatch.setattr(
        "pipeline.registry.promotion.promote", lambda _target, _version, gate, _signer: gates.append(gate) or fail()
    )
    options = ["--episodes", "7", "--seed", "8", "--threshold", "-9.5", "--tolerance", "0.1", "--force"]
    CliRunner().invoke(promote, ["3", *options])
    assert gates == [Gate(episodes=7, seed=8, threshold=-9.5, tolerance=0.1, force=True)]


@pytest.mark.parametrize(
    "command", ["evaluate", "history", "promote", "rollback", "train", "tune", "verify", "versions"]
)
def test_every_command_that_needs_the_registry_takes_its_uri(command):
    with mock.patch.dict(os.environ):
        click.command()(registry_option(lambda: None)).main(
            ["--registry-uri", "http://registry"], standalone_mode=False
        )
        assert os.environ["MLFLOW_REGISTRY_URI"] == "http://registry"
    assert "registry_uri" in {option.name for option in cli.commands[command].params}
