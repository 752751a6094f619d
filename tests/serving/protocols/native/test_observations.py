import copy
import json
from typing import Any

import numpy as np
import pytest

from serving.client.core import to_json
from serving.policy.spaces import leaves
from serving.protocols.errors import (
    ObservationKeyMissing,
    ObservationKeyUnknown,
    ObservationLength,
    ObservationNotFinite,
    ObservationRange,
    ObservationShape,
    ObservationType,
)
from serving.protocols.native.observations import ObservationReader
from tests.serving.policies import CARTPOLE, ROBOT, ROBOT_OBSERVATION


def test_a_nested_observation_becomes_one_array_per_leaf() -> None:
    found = ObservationReader(ROBOT).read(ROBOT_OBSERVATION)
    assert {name: array.tolist() for name, array in found.items()} == {
        "observations.arm.grip": [-1],
        "observations.arm.position": [[0.5, -0.25, 1]],
        "observations.goal.0": [[[0, 1], [2, 255]]],
        "observations.goal.1": [[2, 1]],
        "observations.switches": [[1, 0]],
    }


def test_the_arrays_have_the_dtypes_of_their_leaves() -> None:
    reader = ObservationReader(ROBOT)
    for found in (reader.read(ROBOT_OBSERVATION), reader.read_batch([ROBOT_OBSERVATION] * 3), reader.read_batch([])):
        assert [array.dtype for array in found.values()] == [leaf.space.dtype for leaf in leaves(ROBOT)]


def test_a_batch_is_a_list_of_observations() -> None:
    other = {**ROBOT_OBSERVATION, "switches": [0, 0]}
    found = ObservationReader(ROBOT).read_batch([ROBOT_OBSERVATION, other])
    assert found["observations.switches"].tolist() == [[1, 0], [0, 0]]
    assert found["observations.goal.0"].shape == (2, 2, 2)


def test_observations_of_an_environment_are_read_back_exactly() -> None:
    ROBOT.seed(0)
    samples = [ROBOT.sample() for _ in range(20)]
    found = ObservationReader(ROBOT).read_batch(json.loads(json.dumps(to_json(samples))))
    for row, sample in enumerate(samples):
        np.testing.assert_array_equal(found["observations.arm.position"][row], sample["arm"]["position"])
        np.testing.assert_array_equal(found["observations.goal.0"][row], sample["goal"][0])
        assert found["observations.arm.grip"][row] == sample["arm"]["grip"]


def test_a_space_of_one_leaf_is_one_array() -> None:
    assert ObservationReader(CARTPOLE).read([1, 2, 3, 4])["observations"].shape == (1, 4)
    assert ObservationReader(CARTPOLE).read_batch([[1, 2, 3, 4]])["observations"].shape == (1, 4)


def changed(path: str, value: Any) -> Any:
    """Return ROBOT_OBSERVATION with another value at a dotted path."""
    observation = copy.deepcopy(ROBOT_OBSERVATION)
    *way, last = path.split(".")
    inner: Any = observation
    for key in way:
        inner = inner[int(key) if isinstance(inner, list) else key]
    inner[int(last) if isinstance(inner, list) else last] = value
    return observation


def without(key: str) -> Any:
    return {name: value for name, value in ROBOT_OBSERVATION.items() if name != key}


BAD: list[tuple[Any, type[Exception], str]] = [
    (changed("arm.position", [1, 2]), ObservationShape, ".arm.position: shape (2,), expected (3,) float32"),
    (changed("arm.position", [1, 2, None]), ObservationType, ".arm.position[2]: null, expected a number"),
    (changed("arm.position", "far"), ObservationType, '.arm.position: the string "far", expected (3,) float32'),
    (
        changed("arm.position", [1, float("nan"), 3]),
        ObservationNotFinite,
        ".arm.position[1]: NaN, expected a finite float32",
    ),
    (changed("arm.grip", 2), ObservationRange, ".arm.grip: 2, expected an integer from -1 to 1"),
    (changed("goal.1", [3, 0]), ObservationRange, ".goal.1[0]: 3, expected an integer from 1 to 2"),
    (changed("goal.0", [[0, 1], [2, 256]]), ObservationType, ".goal.0[1][1]: 256, expected a uint8"),
    (changed("goal", [[[0, 1], [2, 3]]]), ObservationLength, ".goal: a list of 1, expected 2 elements"),
    (changed("goal", {"0": 1}), ObservationType, ".goal: an object, expected a list of 2 elements"),
    (changed("arm", [1, 2]), ObservationType, ".arm: a list, expected an object with grip, position"),
    (changed("arm", {"grip": 1}), ObservationKeyMissing, '.arm: no key "position", expected grip, position'),
    (changed("arm.color", 1), ObservationKeyUnknown, '.arm: an unknown key "color", expected grip, position'),
    (without("switches"), ObservationKeyMissing, ' has no key "switches", expected arm, goal, switches'),
    (7, ObservationType, " is 7, expected an object with arm, goal, switches"),
    ([], ObservationType, " is a list, expected an object with arm, goal, switches"),
]


@pytest.mark.parametrize(("value", "error", "message"), BAD, ids=[case[2] for case in BAD])
def test_the_error_of_a_bad_observation_contains_its_path(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        ObservationReader(ROBOT).read(value)
    assert str(caught.value) == f"observation{message}"
    with pytest.raises(error) as caught:
        ObservationReader(ROBOT).read_batch([ROBOT_OBSERVATION, value])
    assert str(caught.value) == f"observations[1]{message}"


def test_a_batch_that_is_not_a_list_is_rejected() -> None:
    with pytest.raises(ObservationType, match="observations is an object, expected a list of observations"):
        ObservationReader(ROBOT).read_batch(ROBOT_OBSERVATION)
