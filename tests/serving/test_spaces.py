import json

import numpy as np
import pytest
from gymnasium import spaces

from serving.errors import SpaceUnsupported
from serving.spaces import space_from_json, space_to_json

CARTPOLE = spaces.Box(np.array([-4.8, -np.inf], np.float32), np.array([4.8, np.inf], np.float32))


@pytest.mark.parametrize(
    "space",
    [
        CARTPOLE,
        spaces.Box(0, 255, (84, 84, 4), np.uint8),
        spaces.Box(-1.0, 1.0, (), np.float64),
        spaces.Box(-np.inf, np.inf, (2, 3), np.float32),
        spaces.Discrete(2),
        spaces.Discrete(5, start=-2),
    ],
    ids=str,
)
def test_a_space_survives_the_way_through_json(space: spaces.Space) -> None:
    text = json.dumps(space_to_json(space), allow_nan=False)
    assert space_from_json(json.loads(text)) == space


def test_infinities_are_strings_and_bounds_exact() -> None:
    description = space_to_json(CARTPOLE)
    assert description["type"] == "Box"
    assert description["shape"] == [2]
    assert description["dtype"] == "float32"
    assert description["low"] == [float(np.float32(-4.8)), "-inf"]
    assert description["high"] == [float(np.float32(4.8)), "inf"]


def test_equal_bounds_are_written_once() -> None:
    assert space_to_json(spaces.Box(0, 255, (84, 84, 4), np.uint8))["high"] == 255


def test_a_discrete_space_names_its_start() -> None:
    assert space_to_json(spaces.Discrete(3, start=1)) == {"type": "Discrete", "n": 3, "start": 1}


def test_a_space_without_a_json_form_is_refused_by_name() -> None:
    with pytest.raises(SpaceUnsupported, match="space not supported: MultiBinary"):
        space_to_json(spaces.MultiBinary(3))


@pytest.mark.parametrize(
    "description",
    [
        {},
        None,
        {"type": "Graph"},
        {"type": "Box", "shape": [2]},
        {"type": "Box", "shape": [2], "dtype": "float32", "low": [0, 0, 0], "high": 1},
        {"type": "Box", "shape": [2], "dtype": "no", "low": 0, "high": 1},
        {"type": "Discrete", "n": 0},
        {"type": "Discrete", "n": "many"},
    ],
    ids=str,
)
def test_a_description_that_is_none_is_refused(description: object) -> None:
    with pytest.raises(SpaceUnsupported):
        space_from_json(description)
