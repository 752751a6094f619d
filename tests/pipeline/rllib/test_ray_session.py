"""A session starts Ray only if it is needed, and sends a cluster the code that it lacks."""

from pathlib import Path

import pytest

from pipeline.config import TrainConfig
from pipeline.rllib.errors import ClusterUnreachable, NotEnoughResources
from pipeline.rllib.ray_session import RaySession, _check_resources, _code
from tests.workshop import free_port

PACKAGES = ["pipeline", "serving"]


def code(**settings):
    return _code(TrainConfig(**settings))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "shimmy:GymV26Environment-v0", "nowhere:Corridor-v0"])
def test_a_cluster_receives_the_packages_but_no_installed_module(env_id):
    assert [Path(each).name for each in code(env_id=env_id)] == PACKAGES


def test_a_cluster_receives_the_module_of_an_environment(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "corridor.py").touch()
    (tmp_path / "mazes").mkdir()
    (tmp_path / "mazes" / "__init__.py").touch()
    assert code(env_id="corridor:Corridor-v0")[2:] == [str(tmp_path / "corridor.py")]
    assert code(env_id="mazes.small:Maze-v0")[2:] == [str(tmp_path / "mazes")]


def test_a_cluster_receives_the_modules_of_wrappers_and_rlmodules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("views.py", "networks.py"):
        (tmp_path / name).touch()
    files = code(wrapper="views:Top,views:Small,gymnasium.wrappers:FlattenObservation", rl_module="networks:Deep")[2:]
    assert files == [str(tmp_path / "views.py"), str(tmp_path / "networks.py")]


def test_training_in_this_process_starts_no_thread():
    with RaySession(None) as session:
        session.start(TrainConfig())
        session.wait_until_ready()
        assert not session._thread.is_alive()


def test_an_address_where_nothing_listens_raises_at_once():
    address = f"127.0.0.1:{free_port()}"
    with RaySession(address) as session:
        session.start(TrainConfig())
        with pytest.raises(ClusterUnreachable, match=f"Cannot join the Ray cluster at {address}: .*refused"):
            session.wait_until_ready()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_env_runners": 9}, "Training needs 9 CPU (num_env_runners + num_learners), and Ray has 2."),
        (
            {"num_learners": 2, "num_gpus_per_learner": 64},
            "Training needs 128 GPU (num_learners x num_gpus_per_learner), and Ray has 1.",
        ),
    ],
)
def test_a_cluster_that_is_too_small_is_reported_with_what_it_has(monkeypatch, settings, message):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0, "GPU": 1.0})
    with pytest.raises(NotEnoughResources) as raised:
        _check_resources(TrainConfig(**settings))
    assert str(raised.value).startswith(message)


def test_a_cluster_that_is_as_large_as_needed_is_enough(monkeypatch):
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 3.0, "GPU": 2.0})
    _check_resources(TrainConfig(num_env_runners=1, num_learners=2, num_gpus_per_learner=1))
