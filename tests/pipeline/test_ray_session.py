"""What a cluster is given of this machine's code."""

from pathlib import Path

import pytest

from pipeline.ray_session import _code

PACKAGES = ["pipeline", "serving"]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "shimmy:GymV26Environment-v0", "nowhere:Corridor-v0"])
def test_it_is_given_the_packages_and_nothing_that_is_installed(env_id):
    assert [Path(each).name for each in _code(env_id)] == PACKAGES


def test_the_module_of_an_environment_comes_along(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "corridor.py").touch()
    (tmp_path / "mazes").mkdir()
    (tmp_path / "mazes" / "__init__.py").touch()
    assert _code("corridor:Corridor-v0")[2:] == [str(tmp_path / "corridor.py")]
    assert _code("mazes.small:Maze-v0")[2:] == [str(tmp_path / "mazes")]
