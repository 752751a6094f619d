"""What a cluster is given of this machine's code."""

from pathlib import Path

import pytest

from pipeline.config import TrainConfig
from pipeline.rllib.ray_session import _code, _modules

PACKAGES = ["pipeline", "serving"]


def code(**settings):
    return _code(_modules(TrainConfig(**settings)))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "shimmy:GymV26Environment-v0", "nowhere:Corridor-v0"])
def test_it_is_given_the_packages_and_nothing_that_is_installed(env_id):
    assert [Path(each).name for each in code(env_id=env_id)] == PACKAGES


def test_the_module_of_an_environment_comes_along(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "corridor.py").touch()
    (tmp_path / "mazes").mkdir()
    (tmp_path / "mazes" / "__init__.py").touch()
    assert code(env_id="corridor:Corridor-v0")[2:] == [str(tmp_path / "corridor.py")]
    assert code(env_id="mazes.small:Maze-v0")[2:] == [str(tmp_path / "mazes")]


def test_the_modules_of_wrappers_and_rlmodules_come_along(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("views.py", "networks.py"):
        (tmp_path / name).touch()
    files = code(wrapper="views:Top,views:Small,gymnasium.wrappers:FlattenObservation", rl_module="networks:Deep")[2:]
    assert files == [str(tmp_path / "views.py"), str(tmp_path / "networks.py")]
