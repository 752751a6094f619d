import base64
import math
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.errors import RequestError
from serving.policy.spaces import leaves
from serving.protocols.errors import (
    ObservationEncoding,
    ObservationNotFinite,
    ObservationRange,
    ObservationShape,
    ObservationType,
)
from serving.protocols.native.leaf_reader import LeafReader
from tests.serving.policies import CARTPOLE

IMAGE = spaces.Box(0, 255, (2, 2), np.uint8)
SCALAR = spaces.Box(-1.0, 1.0, ())
CARDS = spaces.Discrete(5, start=-2)
DICE = spaces.MultiDiscrete([6, 6], start=[1, 1])
SWITCHES = spaces.MultiBinary(3)


def reader(space: Any) -> LeafReader:
    (leaf,) = leaves(space)
    return LeafReader(leaf)


def base64_of(array: Any) -> dict[str, Any]:
    """Return the compact JSON form of an array."""
    text = base64.b64encode(array.tobytes()).decode()
    return {"base64": text, "dtype": array.dtype.name, "shape": list(array.shape)}


def test_one_observation_becomes_a_batch_of_one() -> None:
    array = reader(CARTPOLE).read([1, 2.5, -3, 0.1])
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array([[1, 2.5, -3, 0.1]], np.float32))


def test_a_list_of_observations_becomes_a_batch() -> None:
    array = reader(IMAGE).read_batch([[[0, 1], [2, 255]]] * 3)
    assert array.shape == (3, 2, 2)
    assert array.dtype == np.uint8


def test_an_empty_list_is_an_empty_batch() -> None:
    assert reader(CARTPOLE).read_batch([]).shape == (0, 4)


def test_a_scalar_space_takes_a_number() -> None:
    assert reader(SCALAR).read(0.5).shape == (1,)


def test_values_beyond_the_bounds_of_a_box_are_accepted() -> None:
    assert reader(CARTPOLE).read([99, 0, 0, 0])[0, 0] == 99


BAD = [
    (CARTPOLE, [1, 2, 3], ObservationShape, "observation has shape (3,), expected (4,) float32"),
    (CARTPOLE, [1] * 5, ObservationShape, "observation has shape (5,), expected (4,) float32"),
    (CARTPOLE, [], ObservationShape, "observation has shape (0,), expected (4,) float32"),
    (CARTPOLE, [[1, 2, 3, 4]], ObservationShape, "observation has shape (1, 4), expected (4,) float32"),
    (
        CARTPOLE,
        [1, [2], 3, 4],
        ObservationShape,
        "observation has lists of different lengths, expected (4,) float32",
    ),
    (CARTPOLE, 7, ObservationShape, "observation has shape (), expected (4,) float32"),
    (CARTPOLE, None, ObservationType, "observation is null, expected (4,) float32"),
    (CARTPOLE, "abcd", ObservationType, 'observation is the string "abcd", expected (4,) float32'),
    (CARTPOLE, {"a": 1}, ObservationType, "observation is an object, expected (4,) float32"),
    (CARTPOLE, [1, "2", 3, 4], ObservationType, 'observation[1] is the string "2", expected a number'),
    (CARTPOLE, [1, 2, None, 4], ObservationType, "observation[2] is null, expected a number"),
    (CARTPOLE, [True, 2, 3, 4], ObservationType, "observation[0] is true, expected a number"),
    (CARTPOLE, [1, 2, 3, {}], ObservationType, "observation[3] is an object, expected a number"),
    (CARTPOLE, [math.nan, 2, 3, 4], ObservationNotFinite, "observation[0] is NaN, expected a finite float32"),
    (CARTPOLE, [1, -math.inf, 3, 4], ObservationNotFinite, "observation[1] is -Infinity, expected a finite float32"),
    (CARTPOLE, [1, 2, 1e39, 4], ObservationNotFinite, "observation[2] is 1e+39, expected a finite float32"),
    (CARTPOLE, [10**400, 2, 3, 4], ObservationNotFinite, f"observation[0] is 1{'0' * 39}, expected a finite float32"),
    (IMAGE, [[0, 1], [2]], ObservationShape, "observation has lists of different lengths, expected (2, 2) uint8"),
    (IMAGE, [[0, 1], [2, 256]], ObservationType, "observation[1][1] is 256, expected a uint8"),
    (IMAGE, [[0, 1], [2, -1]], ObservationType, "observation[1][1] is -1, expected a uint8"),
    (IMAGE, [[0, 1.5], [2, 3]], ObservationType, "observation[0][1] is 1.5, expected an integer"),
    (IMAGE, [0, 1, 2, 3], ObservationShape, "observation has shape (4,), expected (2, 2) uint8"),
    (
        spaces.Box(0, 1, (2,), np.bool_),
        [1, 2],
        ObservationRange,
        "observation[1] is 2, expected an integer from 0 to 1",
    ),
    (DICE, [1, 10**30], ObservationRange, f"observation[1] is 1{'0' * 30}, expected an integer from 1 to 6"),
    (IMAGE, [[0, 1], None], ObservationType, "observation[1] is null, expected an integer"),
    (SCALAR, [0.5], ObservationShape, "observation has shape (1,), expected () float32"),
]


@pytest.mark.parametrize(("space", "value", "error", "message"), BAD, ids=[case[3][:60] for case in BAD])
def test_a_bad_observation_raises_its_exact_error(space: Any, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        reader(space).read(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1, 2, 3, 4], [1, 2]], "observations[1] has shape (2,), expected (4,) float32"),
        ([1, 2, 3, 4], "observations[0] has shape (), expected (4,) float32"),
        ([[1, 2, 3, 4], None], "observations[1] is null, expected (4,) float32"),
        ([[1, 2, 3, "4"]], 'observations[0][3] is the string "4", expected a number'),
        ({"0": []}, "observations is an object, expected a list of observations of (4,) float32"),
    ],
)
def test_the_error_of_a_bad_observation_in_a_batch_contains_its_index(values: Any, message: str) -> None:
    with pytest.raises((ObservationShape, ObservationType)) as caught:
        reader(CARTPOLE).read_batch(values)
    assert str(caught.value) == message


def test_deep_nesting_is_rejected_as_a_wrong_shape() -> None:
    value: Any = []
    for _ in range(900):
        value = [value]
    with pytest.raises((ObservationShape, ObservationType)):
        reader(CARTPOLE).read(value)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (CARDS, -2),
        (CARDS, 2),
        (DICE, [1, 6]),
        (SWITCHES, [1, 0, 1]),
        (SWITCHES, [True, False, True]),
        (spaces.Box(0, 1, (2,), np.bool_), [True, False]),  # type: ignore[arg-type]
        (spaces.Box(0, 1, (2,), np.bool_), [1, 0]),  # type: ignore[arg-type]
        (spaces.Box(-1, 1, (2, 1), np.float64), [[0.1], [-7]]),
        (spaces.Box(-(2**63), 2**63 - 2, (1,), np.int64), [2**63 - 1]),
    ],
    ids=str,
)
def test_every_kind_of_leaf_is_read_exactly_in_its_own_dtype(space: Any, value: Any) -> None:
    expected = np.array(value, space.dtype)[None]
    for array in (reader(space).read(value), reader(space).read_batch([value] * 2)[1:]):
        assert array.dtype == space.dtype
        np.testing.assert_array_equal(array, expected)


def test_samples_of_a_space_are_read_back_from_json() -> None:
    for space in (CARTPOLE, IMAGE, SCALAR, CARDS, DICE, SWITCHES):
        space.seed(0)
        for _ in range(20):
            sample = space.sample()
            assert reader(space).read(np.asarray(sample).tolist())[0].tolist() == np.asarray(sample).tolist()


def test_arrays_are_read_from_base64_one_by_one_and_as_a_whole() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    np.testing.assert_array_equal(reader(IMAGE).read(base64_of(images[0])), images[:1])
    listed = [base64_of(images[0]), images[1].tolist(), base64_of(images[2])]
    np.testing.assert_array_equal(reader(IMAGE).read_batch(listed), images)
    np.testing.assert_array_equal(reader(IMAGE).read_batch(base64_of(images)), images)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8])
def test_numbers_in_base64_are_read_like_those_in_lists(dtype: Any) -> None:
    array = np.array([0, 1, 2, 3], dtype)
    found = reader(CARTPOLE).read(base64_of(array))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, array[None])


BAD_COUNTS = [
    (CARDS, 3, ObservationRange, "observation is 3, expected an integer from -2 to 2"),
    (CARDS, 10**30, ObservationRange, f"observation is {10**30}, expected an integer from -2 to 2"),
    (CARDS, 1.0, ObservationType, "observation is 1.0, expected an integer from -2 to 2"),
    (CARDS, True, ObservationType, "observation is true, expected an integer from -2 to 2"),
    (CARDS, None, ObservationType, "observation is null, expected an integer from -2 to 2"),
    (CARDS, [1], ObservationShape, "observation has shape (1,), expected an integer from -2 to 2"),
    (DICE, [1, 7], ObservationRange, "observation[1] is 7, expected an integer from 1 to 6"),
    (DICE, [0, 7], ObservationRange, "observation[0] is 0, expected an integer from 1 to 6"),
    (DICE, [1], ObservationShape, "observation has shape (1,), expected (2,) int64"),
    (SWITCHES, [0, 2, 0], ObservationRange, "observation[1] is 2, expected an integer from 0 to 1"),
]
BAD_BASE64 = [
    ({"base64": ""}, "observation: keys base64, expected base64, dtype, shape"),
    (
        {"base64": "", "dtype": "object", "shape": []},
        "observation: dtype is unknown, expected one of bool, float16, float32, ",
    ),
    ({"base64": "", "dtype": ["a"], "shape": []}, "observation: dtype is unknown, expected one of "),
    ({"base64": "", "dtype": "uint8", "shape": 3}, "observation: shape is not a list of lengths"),
    ({"base64": "", "dtype": "uint8", "shape": [-1]}, "observation: shape is not a list of lengths"),
    ({"base64": "", "dtype": "uint8", "shape": [10**30, 0]}, "observation: shape is not a list of lengths"),
    ({"base64": "", "dtype": "uint8", "shape": [2**31] * 9 + [0]}, "observation: shape has too many or too long"),
    # The product has more digits than Python writes.
    (
        {"base64": "", "dtype": "uint8", "shape": [2**31] * 500},
        "observation: shape has too many or too long dimensions",
    ),
    ({"base64": "", "dtype": "uint8", "shape": [0] * 99}, "observation: shape has too many or too long dimensions"),
    ({"base64": "A", "dtype": "uint8", "shape": [1]}, "observation: base64 is not valid"),
    ({"base64": "\ud800", "dtype": "uint8", "shape": [1]}, "observation: base64 is not valid"),
    ({"base64": None, "dtype": "uint8", "shape": [1]}, "observation: base64 is not valid"),
    (
        {"base64": "AAAA", "dtype": "float32", "shape": [4]},
        "observation: base64 holds 3 bytes, expected 16 for shape (4,) float32",
    ),
]


@pytest.mark.parametrize(("space", "value", "error", "message"), BAD_COUNTS, ids=[case[3][:60] for case in BAD_COUNTS])
def test_integers_outside_of_a_space_are_rejected(space: Any, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        reader(space).read(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(("value", "message"), BAD_BASE64, ids=[case[1] for case in BAD_BASE64])
def test_bad_base64_raises_its_exact_error(value: Any, message: str) -> None:
    with pytest.raises(ObservationEncoding) as caught:
        reader(CARTPOLE).read(value)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("space", "array", "message"),
    [
        (CARTPOLE, np.zeros(3, np.float32), "has shape (3,), expected (4,) float32"),
        (CARTPOLE, np.array([0, 0, np.nan, 0]), "[2] is NaN, expected a finite float32"),
        (CARTPOLE, np.array([0, 0, 1e39, 0]), "[2] is 1e+39, expected a finite float32"),
        (CARTPOLE, np.zeros(4, np.bool_), "is an array of bool, expected (4,) float32"),
        (IMAGE, np.full((2, 2), 256), "[0][0] is 256, expected a uint8"),
        (IMAGE, np.zeros((2, 2)), "is an array of float64, expected (2, 2) uint8"),
        (DICE, np.array([1, 9]), "[1] is 9, expected an integer from 1 to 6"),
    ],
    ids=str,
)
def test_numbers_in_base64_are_validated_like_those_in_lists(space: Any, array: Any, message: str) -> None:
    separator = "" if message.startswith("[") else " "
    with pytest.raises(RequestError) as caught:
        reader(space).read(base64_of(array))
    assert str(caught.value) == f"observation{separator}{message}"
    with pytest.raises(RequestError) as caught:
        reader(space).read_batch([np.ones(space.shape, int).tolist(), base64_of(array)])
    assert str(caught.value) == f"observations[1]{separator}{message}"


def test_the_error_of_a_bad_number_in_a_base64_batch_contains_its_index() -> None:
    with pytest.raises(ObservationNotFinite, match=r"observations\[1\]\[2\] is NaN"):
        reader(CARTPOLE).read_batch(base64_of(np.array([[0, 0, 0, 0], [0, 0, np.nan, 0]])))


@pytest.mark.parametrize(
    ("space", "array", "message"),
    [
        (IMAGE, np.zeros((3, 2), np.uint8), "observations has shape (3, 2), expected a list of observations of (2, 2)"),
        (IMAGE, np.zeros((0, 2, 2)), "observations is an array of float64, expected (2, 2) uint8"),
        (CARDS, np.array(1), "observations has shape (), expected a list of observations of an integer from -2 to 2"),
    ],
    ids=str,
)
def test_a_base64_batch_of_another_shape_or_type_is_rejected(space: Any, array: Any, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        reader(space).read_batch(base64_of(array))
    assert str(caught.value).startswith(message)
