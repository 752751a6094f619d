import json
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.policy.errors import SpaceUnsupported
from serving.policy.spaces import describe, leaves, nearest_to_zero, space_differences, space_from_json, space_to_json
from tests.serving.policies import ROBOT

CARTPOLE = spaces.Box(np.array([-4.8, -np.inf], np.float32), np.array([4.8, np.inf], np.float32))
SPACES: list[Any] = [
    CARTPOLE,
    spaces.Box(0, 255, (84, 84, 4), np.uint8),
    spaces.Box(-1.0, 1.0, (), np.float64),
    spaces.Box(-np.inf, np.inf, (2, 3), np.float32),
    spaces.Box(np.array([[0.1, -np.inf], [3, 4]]), np.array([[np.inf, 1 / 3], [3, 5]]), dtype=np.float64),
    spaces.Box(-np.inf, np.inf, (2,), np.int64),
    spaces.Box(np.array([-(2**63), 5]), np.array([2**63 - 2, 6]), dtype=np.int64),
    spaces.Box(0, 2**64 - 1, (2,), np.uint64),
    spaces.Box(0, 1, (3,), np.bool_),  # type: ignore[arg-type]
    spaces.Box(-1, 1, (0,), np.float16),
    spaces.Discrete(2),
    spaces.Discrete(5, start=-2),
    spaces.Discrete(5, dtype=np.int32),
    spaces.MultiDiscrete([3, 2]),
    spaces.MultiDiscrete([[3, 2], [1, 9]], start=[[-1, 0], [5, 0]], dtype=np.int32),
    spaces.MultiBinary(3),
    spaces.MultiBinary((3,)),
    spaces.MultiBinary([2, 2]),
    spaces.Dict(OrderedDict([("b", spaces.Discrete(2)), ("a", spaces.Tuple([CARTPOLE, spaces.MultiBinary(2)]))])),
    ROBOT,
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_equals_itself_after_json(space: spaces.Space[Any]) -> None:
    text = json.dumps(space_to_json(space), allow_nan=False)
    found = space_from_json(json.loads(text))
    assert found == space
    assert str(found) == str(space)
    for one, other in zip(leaves(space), leaves(found), strict=True):
        assert vars_of(one.space) == vars_of(other.space)


def vars_of(space: Any) -> dict[str, Any]:
    """The numbers that define a leaf, to the bit."""
    names = ("dtype", "shape", "low", "high", "bounded_below", "bounded_above", "n", "start", "nvec")
    found = {name: getattr(space, name) for name in names if hasattr(space, name)}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found.items()}


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


def test_the_leaves_of_a_nested_space_are_sorted_and_named_by_their_path() -> None:
    found = leaves(ROBOT)
    assert [leaf.path for leaf in found] == ["arm.grip", "arm.position", "goal.0", "goal.1", "switches"]
    assert found[1].space == spaces.Box(-1, 1, (3,))
    assert found[1].tensor("observations") == "observations.arm.position"
    insertion = spaces.Dict(OrderedDict([("b", spaces.Discrete(2)), ("a", spaces.Discrete(3))]))
    assert [leaf.path for leaf in leaves(insertion)] == ["a", "b"]


def test_a_space_of_one_array_is_its_only_leaf() -> None:
    (leaf,) = leaves(CARTPOLE)
    assert (leaf.path, leaf.space, leaf.tensor("action")) == ("", CARTPOLE, "action")


@pytest.mark.parametrize("use", [leaves, space_to_json])
@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Text(3), r"unsupported space: Text\(.*; supported are Box, Discrete, "),
        (spaces.Dict(a=spaces.Sequence(spaces.Discrete(2))), "unsupported space: Sequence"),
        (spaces.Dict({"a.b": spaces.Discrete(2)}), r"Dict with the key 'a.b' \(keys must be strings without dots\)"),
        (spaces.Dict({1: spaces.Discrete(2)}), "Dict with the key 1 "),  # type: ignore[dict-item]
        (spaces.Tuple([]), "which has no arrays"),
    ],
    ids=str,
)
def test_the_error_names_a_space_without_a_json_form(use: Any, space: Any, message: str) -> None:
    with pytest.raises(SpaceUnsupported, match=message):
        use(space)


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
        {"type": "MultiDiscrete", "nvec": [2], "start": [0, 0], "dtype": "int64"},
        {"type": "MultiBinary", "n": 0},
        {"type": "Dict", "spaces": []},
        {"type": "Dict", "spaces": {"a.b": {"type": "Discrete", "n": 2}}},
        {"type": "Tuple", "spaces": [{"type": "Text"}]},
    ],
    ids=str,
)
def test_an_invalid_description_is_rejected(description: object) -> None:
    with pytest.raises(SpaceUnsupported):
        space_from_json(description)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (True, "true"),
        ("a" * 30, f'the string "{"a" * 20}"'),
        ([1], "a list"),
        ({}, "an object"),
        (1.5, "1.5"),
        (10**50, "1" + "0" * 39),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
    ],
    ids=str,
)
def test_a_json_value_is_described_in_the_terms_of_json(value: Any, expected: str) -> None:
    assert describe(value) == expected


def test_the_differences_name_the_space_and_both_forms() -> None:
    one = SimpleNamespace(observation_space=CARTPOLE, action_space=spaces.Discrete(2))
    other = SimpleNamespace(observation_space=CARTPOLE, action_space=spaces.Discrete(3))
    assert space_differences(one, one) == []
    assert space_differences(one, other) == [("action", spaces.Discrete(2), spaces.Discrete(3))]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (CARTPOLE, [0, 0]),
        (spaces.Box(2, 3, (1,)), [2]),
        (spaces.Discrete(5, start=-2), 0),
        (spaces.MultiBinary(2), [0, 0]),
    ],
)
def test_the_element_nearest_to_zero_is_in_the_space(space: Any, expected: object) -> None:
    found = nearest_to_zero(space)
    assert found.tolist() == expected
    assert found.dtype == space.dtype
