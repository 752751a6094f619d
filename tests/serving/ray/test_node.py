"""`python -m serving ray start`: Ray's own command, with the settings of a node."""

import os
import site
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from serving.cli import main
from serving.ray import node, settings
from tests.workshop import PROJECT


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The size of the largest bodies for which settings were set, and the command that was executed after it."""
    found: list[Any] = []
    monkeypatch.setattr(settings, "configure_node", found.append)
    monkeypatch.setattr(os, "execv", lambda _, arguments: found.append(arguments))
    return found


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["ray", *arguments])


def test_all_options_after_start_are_those_of_ray(done: list[Any]) -> None:
    options = ["--head", "--help", "--max-body-bytes", "9", "--port=1", "--", "x"]
    assert invoke("--max-body-bytes", "1000", "start", *options).exit_code == 0
    assert done == [1000, [sys.executable, "-m", "ray.scripts.scripts", "start", *options]]


def test_other_commands_of_ray_need_no_settings_and_are_refused(done: list[Any]) -> None:
    assert invoke("stop").exit_code == 2
    assert invoke().exit_code == 2
    assert done == []


@pytest.mark.usefixtures("done")
def test_rays_workers_can_import_this_package_from_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/other")
    node.start((), 1)
    assert os.environ["PYTHONPATH"] == f"{PROJECT}:/other"


@pytest.mark.usefixtures("done")
def test_an_installed_package_is_not_put_before_other_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(PROJECT)])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    node.start((), 1)
    assert "PYTHONPATH" not in os.environ


def test_ray_has_the_command_that_is_executed() -> None:
    from ray.scripts import scripts

    assert Path(scripts.__file__).name == "scripts.py"
    assert "start" in scripts.cli.commands
