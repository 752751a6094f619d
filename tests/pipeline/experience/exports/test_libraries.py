"""Minari and d3rlpy load the exports, and find in them what the client saw: `make test-exports`."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from pipeline.environments.nested_spaces import flatten
from pipeline.experience.exports.export import export
from tests.pipeline.experience.exports.recorded import Truth, random_episode
from tests.serving.policies import CARTPOLE, ROBOT
from tests.workshop import PROJECT

pytestmark = pytest.mark.exports

PYTHON = PROJECT / ".venv-exports" / "bin" / "python"
DISCRETE = spaces.Discrete(2)
TORQUE = spaces.Box(-2.0, 2.0, (1,), np.float32)
CAMERA = spaces.Box(0, 255, (3, 40, 40), np.uint8)


def load(library: str, path: Path) -> dict[str, Any]:
    """Load an export in the environment of the other library."""
    if not PYTHON.exists():
        pytest.skip("there is no .venv-exports: make test-exports")
    script = Path(__file__).with_name("readers.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, script, library, path], capture_output=True, text=True, check=False, env=environment, cwd=path.parent
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def two(observation_space: Any, action_space: Any) -> list[Truth]:
    """Two episodes in the order of their ids, one of each end."""
    ends = ("terminated", "truncated")
    made = [random_episode(end, observation_space, action_space, 6, done=end) for end in ends]
    return sorted(made, key=lambda truth: truth.id)


@pytest.mark.parametrize(
    ("observation_space", "action_space"),
    [
        (CARTPOLE, DISCRETE),
        (CARTPOLE, TORQUE),
        (spaces.Discrete(7), spaces.MultiDiscrete([2, 3])),
        (spaces.MultiBinary(3), spaces.Discrete(3, start=1)),
        (ROBOT, spaces.Tuple([DISCRETE, TORQUE])),
        (spaces.Box(0, 255, (40, 40, 3), np.uint8), DISCRETE),
    ],
    ids=str,
)
def test_minari_loads_what_the_client_saw(recorded, tmp_path, observation_space, action_space):
    truths = two(observation_space, action_space)
    export(recorded(truths, observation_space, action_space), "minari", tmp_path / "out")
    found = load("minari", tmp_path / "out")
    assert found["name"] == "cartpole-ppo/experience-v0"
    assert found["total_steps"] == 12
    # Minari sorts the keys of a Dict, Gymnasium did not.
    assert sorted(found["observation_space"]) == sorted(str(observation_space))
    assert found["action_space"] == str(action_space)
    assert found["environment"] == "CartPole-v1"
    for truth, episode in zip(truths, found["episodes"], strict=True):
        assert_equal(observation_space, truth.observations, episode["observations"])
        assert_equal(action_space, truth.actions, episode["actions"])
        assert episode["rewards"] == truth.rewards
        assert episode["terminated"] == [False] * 5 + [truth.done == "terminated"]
        assert episode["truncated"] == [False] * 5 + [truth.done == "truncated"]


def assert_equal(space: Any, values: list[Any], found: Any) -> None:
    expected = [np.stack(column) for column in zip(*(flatten(space, value) for value in values), strict=True)]
    for one, other in zip(expected, flatten(space, found), strict=True):
        assert np.array_equal(one, np.array(other, one.dtype))


@pytest.mark.parametrize(
    ("observation_space", "action_space", "dtypes"),
    [
        (CARTPOLE, DISCRETE, ["float32", "int32"]),
        (CARTPOLE, TORQUE, ["float32", "float32"]),
        (CAMERA, DISCRETE, ["uint8", "int32"]),
        (spaces.MultiBinary(3), DISCRETE, ["float32", "int32"]),
    ],
    ids=str,
)
def test_d3rlpy_loads_and_learns_from_what_the_client_saw(recorded, tmp_path, observation_space, action_space, dtypes):
    truths = two(observation_space, action_space)
    export(recorded(truths, observation_space, action_space), "d3rlpy", tmp_path / "out")
    found = load("d3rlpy", tmp_path / "out" / "episodes.h5")
    assert found["transitions"] == 6 + 5  # nothing is known after the last action of a truncated episode
    assert found["loss_is_finite"]
    for truth, episode in zip(truths, found["episodes"], strict=True):
        assert episode["dtypes"] == dtypes
        assert np.array_equal(np.array(episode["observations"], dtypes[0]), np.stack(truth.observations[:-1]))
        assert np.array_equal(np.array(episode["actions"], dtypes[1]).reshape(6), np.array(truth.actions).reshape(6))
        assert np.array_equal(np.array(episode["rewards"])[:, 0], np.array(truth.rewards, np.float32))
        assert episode["terminated"] == (truth.done == "terminated")
