"""The project files agree with the code, and every default stands once."""

import re
from dataclasses import fields
from enum import Enum
from pathlib import Path

import click
import pytest
import yaml

from pipeline.cli import cli as pipeline_cli
from pipeline.config import TrainConfig
from serving.cli import main as serving_cli

PROJECT = Path(__file__).parent.parent
MLPROJECT = yaml.safe_load((PROJECT / "MLproject").read_text())
CONDA = yaml.safe_load((PROJECT / "conda.yaml").read_text())

COMMANDS = [
    pytest.param(command, id=f"{group}-{name}")
    for group, cli in (("pipeline", pipeline_cli), ("serving", serving_cli))
    for name, command in cli.commands.items()
]


def test_mlproject_repeats_the_defaults_of_the_training_configuration():
    declared = MLPROJECT["entry_points"]["main"]["parameters"]
    assert list(declared) == ["resume", "from", *(setting.name for setting in fields(TrainConfig))]
    for setting in fields(TrainConfig):
        written = declared[setting.name]
        is_text = setting.default is None or isinstance(setting.default, (str, bool))
        assert written["type"] == ("string" if is_text else "float")
        (option,) = [each for each in pipeline_cli.commands["train"].params if each.name == setting.name]
        assert option.type.convert(written["default"], None, None) == setting.default, setting.name


def test_mlproject_hands_every_parameter_to_the_option_of_its_name():
    for entry_point, declared in MLPROJECT["entry_points"].items():
        assert set(re.findall(r"{(\w+)}", declared["command"])) == set(declared["parameters"]), entry_point
        for option, parameter in re.findall(r"--([\w-]+) {(\w+)}", declared["command"]):
            assert option == parameter.strip("_").replace("_", "-")


@pytest.mark.parametrize("entry_point", ["tune", "evaluate", "promote"])
def test_mlproject_repeats_the_defaults_of_the_options(entry_point):
    declared = MLPROJECT["entry_points"][entry_point]
    options = {option.name: option for option in pipeline_cli.commands[entry_point].params}
    for name in re.findall(r"--[\w-]+ {(\w+)}", declared["command"]):
        written = declared["parameters"][name]["default"]
        expected = options[name].get_default(click.Context(click.Command("none")))
        is_empty = isinstance(expected, Enum)  # as click says that there is no default
        assert written == ("" if is_empty else expected), name


def test_mlproject_runs_commands_in_the_place_of_their_shell():
    """A shell between `mlflow run` and the command would keep the death of the first from the second."""
    assert all(each["command"].startswith("exec python -m pipeline ") for each in MLPROJECT["entry_points"].values())


def test_every_package_is_pinned_exactly():
    packages = CONDA["dependencies"][-1]["pip"]
    assert all(re.fullmatch(r"[\w\[\],-]+==[\w.]+", package) for package in packages), packages


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_has_help(command):
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))
