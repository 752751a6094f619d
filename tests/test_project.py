"""The project files agree with the code."""

import re
import tomllib
from enum import Enum
from pathlib import Path

import click
import pytest
import yaml
from packaging.requirements import Requirement

from pipeline.cli import cli as pipeline_cli
from serving.cli import main as serving_cli

PROJECT = Path(__file__).parent.parent
MLPROJECT = yaml.safe_load((PROJECT / "MLproject").read_text())
CONDA = yaml.safe_load((PROJECT / "conda.yaml").read_text())

COMMANDS = [
    pytest.param(command, id=f"{group}-{name}")
    for group, cli in (("pipeline", pipeline_cli), ("serving", serving_cli))
    for name, command in cli.commands.items()
]


@pytest.mark.parametrize("entry_point", ["main", "tune"])
def test_mlproject_declares_no_setting_of_a_training(entry_point):
    """MLflow logs a declared default as the run's parameter, where the value chosen for the environment belongs."""
    assert "parameters" not in MLPROJECT["entry_points"][entry_point]


def test_mlproject_passes_every_declared_parameter_to_the_option_of_its_name():
    for entry_point, declared in MLPROJECT["entry_points"].items():
        expected = set(declared.get("parameters", {}))
        assert set(re.findall(r"{(\w+)}", declared["command"])) == expected, entry_point
        for option, parameter in re.findall(r"--([\w-]+) {(\w+)}", declared["command"]):
            assert option == parameter.strip("_").replace("_", "-")


@pytest.mark.parametrize("entry_point", ["evaluate", "promote"])
def test_mlproject_repeats_the_defaults_of_the_options(entry_point):
    declared = MLPROJECT["entry_points"][entry_point]
    options = {option.name: option for option in pipeline_cli.commands[entry_point].params}
    for name in re.findall(r"--[\w-]+ {(\w+)}", declared["command"]):
        written = declared["parameters"][name]["default"]
        expected = options[name].get_default(click.Context(click.Command("none")))
        is_empty = isinstance(expected, Enum)  # click's marker for an option without a default
        assert written == ("" if is_empty else expected), name


def test_mlproject_replaces_the_shell_by_the_command():
    """With a shell between them, the command would not notice the death of `mlflow run`."""
    assert all(each["command"].startswith("exec python -m pipeline ") for each in MLPROJECT["entry_points"].values())


def test_every_package_is_pinned_exactly():
    packages = CONDA["dependencies"][-1]["pip"]
    assert all(re.fullmatch(r"[\w\[\],-]+==[\w.]+", package) for package in packages), packages


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_has_help(command):
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def locked() -> dict[str, str]:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    return dict(re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups() for line in lines if not line.startswith("#"))


def extra_requirements(*extras: str) -> dict[str, Requirement]:
    """The requirements of the package and these extras by name; those with several are merged."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    found: dict[str, Requirement] = {}
    for requirement in map(Requirement, texts):
        if requirement.name != project["name"]:
            earlier = found.setdefault(requirement.name, requirement)
            earlier.extras |= requirement.extras
            earlier.specifier &= requirement.specifier
    return found


def test_conda_yaml_pins_what_the_extras_require():
    pinned = {each.name: each for each in map(Requirement, CONDA["dependencies"][-1]["pip"])}
    required = extra_requirements("async", "serving", "pipeline")
    assert pinned.keys() == required.keys()
    for name, requirement in required.items():
        (version,) = [clause.version for clause in pinned[name].specifier]
        assert version in requirement.specifier, name
        assert pinned[name].extras == requirement.extras, name


def test_the_lock_pins_what_conda_yaml_pins():
    for each in map(Requirement, CONDA["dependencies"][-1]["pip"]):
        assert str(each.specifier) == f"=={locked()[each.name]}", each.name


def test_the_lock_holds_no_build_of_one_index():
    """Local labels, as in 2.13.0+cpu, and hashes differ between indexes that hold the same version."""
    text = (PROJECT / "constraints.txt").read_text()
    assert "+" not in text
    assert "--hash" not in text
    assert "://" not in text


def test_the_extra_cuda_is_the_extra_serving_with_another_onnx_runtime():
    cuda, serving = extra_requirements("async", "cuda"), extra_requirements("async", "serving")
    assert str(cuda.pop("onnxruntime-gpu")) == f"onnxruntime-gpu[cuda,cudnn]=={locked()['onnxruntime-gpu']}"
    del serving["onnxruntime"]
    assert cuda == serving


def test_a_server_needs_neither_torch_nor_rllib():
    required = extra_requirements("async", "serving")
    assert "torch" not in required
    assert required["ray"].extras == {"serve"}
