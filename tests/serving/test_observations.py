import math
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.errors import ObservationNotFinite, ObservationShape, ObservationType, SpaceUnsupported
from serving.observations import observation_reader
from tests.serving.policies import CARTPOLE

IMAGE = spaces.Box(0, 255, (2, 2), np.uint8)
SCALAR = spaces.Box(-1.0, 1.0, ())


def test_one_observation_becomes_a_batch_of_one() -> None:
    array = observation_reader(CARTPOLE).read([1, 2.5, -3, 0.1])
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, np.array([[1, 2.5, -3, 0.1]], np.float32))


def test_a_list_of_observations_becomes_a_batch() -> None:
    array = observation_reader(IMAGE).read_batch([[[0, 1], [2, 255]]] * 3)
    assert array.shape == (3, 2, 2)
    assert array.dtype == np.uint8


def test_an_empty_list_is_an_empty_batch() -> None:
    assert observation_reader(CARTPOLE).read_batch([]).shape == (0, 4)


def test_a_scalar_space_takes_a_number() -> None:
    assert observation_reader(SCALAR).read(0.5).shape == (1,)


def test_values_beyond_the_bounds_are_the_environments_business() -> None:
    assert observation_reader(CARTPOLE).read([99, 0, 0, 0])[0, 0] == 99


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
    (SCALAR, [0.5], ObservationShape, "observation has shape (1,), expected () float32"),
]


@pytest.mark.parametrize(("space", "value", "error", "message"), BAD, ids=[case[3][:60] for case in BAD])
def test_a_bad_observation_is_named_exactly(space: Any, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        observation_reader(space).read(value)
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
def test_a_bad_observation_in_a_batch_is_named_with_its_index(values: Any, message: str) -> None:
    with pytest.raises((ObservationShape, ObservationType)) as caught:
        observation_reader(CARTPOLE).read_batch(values)
    assert str(caught.value) == message


def test_endless_nesting_is_refused_like_any_other_shape() -> None:
    value: Any = []
    for _ in range(900):
        value = [value]
    with pytest.raises((ObservationShape, ObservationType)):
        observation_reader(CARTPOLE).read(value)


def test_spaces_without_a_reader_are_refused() -> None:
    with pytest.raises(SpaceUnsupported, match="as observations"):
        observation_reader(spaces.Discrete(3))
