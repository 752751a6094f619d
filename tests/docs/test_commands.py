"""Every command in the documents exists. `tests/e2e/test_journey.py` runs those of the `bash` blocks."""

import copy
import importlib
import re
import shlex

import click
import pytest
from mlflow.projects._project_spec import load_project

from pipeline.cli import cli as pipeline_cli
from serving.arguments import Arguments
from serving.cli import main as serving_cli
from serving.experience.conversion import __main__ as conversion
from tests.docs.pages import PAGES, commands, name
from tests.workshop import PROJECT

TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))

#: Programs that are not this project's, which this test does not look into.
OTHERS = {"pre-commit", "curl", "export", "git", "pip", "ray", "source", "openssl", "cat", "serve", "perf", "(umask"}
OTHERS |= {"promtool", "prometheus", "cp", "pg_dump", "pg_restore", "createdb", "aws", "docker", "kubectl"}

COMMANDS = [
    pytest.param(command, id=f"{name(page)}: {command[:60]}")
    for page in PAGES
    for command in commands(page, "bash", "sh")
]


def parse_python(module: str, command: str, *arguments: str) -> None:
    group = {"pipeline": pipeline_cli, "serving": serving_cli}[module]
    found = copy.deepcopy(group.commands[command])
    while isinstance(found, click.Group):
        command, *arguments = arguments
        found = found.commands[command]
    # Paths that an example names need not exist.
    for option in found.params:
        if isinstance(option.type, click.Path):
            option.type.exists = False
    found.make_context(command, list(arguments), parent=click.Context(group))


def parse_benchmark(module: str, *arguments: str) -> None:
    importlib.import_module(module).main.make_context(module, list(arguments))


def parse_make(*arguments: str) -> None:
    targets = [argument for argument in arguments if "=" not in argument]
    assert set(targets) <= TARGETS


def parse_mlflow_run(*arguments: str) -> None:
    name = arguments[arguments.index("-e") + 1] if "-e" in arguments else "main"
    given = dict(arguments[i + 1].split("=", 1) for i, argument in enumerate(arguments) if argument == "-P")
    entry_point = load_project(PROJECT).get_entry_point(name)
    if entry_point.parameters:
        assert set(given) <= set(entry_point.parameters)
    exec_, python, _, *words = shlex.split(entry_point.compute_command(given, None))
    assert (exec_, python) == ("exec", "python")
    parse_python(*words)


def parse_mlflow_server(*arguments: str) -> None:
    from mlflow.cli import server

    server.make_context("server", list(arguments))


def parse_serve_run(*arguments: str) -> None:
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    Arguments(**given)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_line_parses(command):
    words = shlex.split(command.split(" && ")[-1].split(" > ")[0], comments=True)
    while words and re.fullmatch(r"[A-Za-z_]+=.*", words[0]):
        words.pop(0)
    match words:
        case ["python", "-m", ("pipeline" | "serving") as module, *rest]:
            parse_python(module, *rest)
        case ["python", "-m", "serving.experience.conversion", *rest]:
            conversion.parser().parse_args(rest)
        case ["make", *rest]:
            parse_make(*rest)
        case ["mlflow", "run", *rest]:
            parse_mlflow_run(*rest)
        case ["mlflow", "server", *rest]:
            parse_mlflow_server(*rest)
        case ["serve", "run", *rest]:
            parse_serve_run(*rest)
        case _:
            assert words[0] in OTHERS, f"not a command that the documents may use: {words[0]}"


def test_a_misspelt_option_is_found():
    with pytest.raises(click.NoSuchOption):
        parse_python("pipeline", "train", "--sed", "1")
