import numpy as np
import pytest
from gymnasium import spaces

from pipeline.environments.nested_spaces import stack
from pipeline.reference.dimensions import MAX_ELEMENTS, Dimension, Dimensions
from serving.policy.tensors import OBSERVATIONS


def numbers(space, *values):
    return Dimensions(space).numbers(stack(space, list(values), OBSERVATIONS))


def test_each_number_of_a_vector_is_a_dimension():
    space = spaces.Box(-1, 1, (3,))
    assert [each.name for each in Dimensions(space).all] == ["0", "1", "2"]
    assert numbers(space, np.array([0.5, -0.25, 1.0])).tolist() == [[0.5, -0.25, 1.0]]


def test_the_dimensions_of_a_nested_space_are_those_of_its_arrays_with_their_paths():
    space = spaces.Dict(arm=spaces.Dict(position=spaces.Box(-1, 1, (2, 1))), grip=spaces.Discrete(3, start=-1))
    assert Dimensions(space).all == (
        Dimension("arm.position[0, 0]"),
        Dimension("arm.position[1, 0]"),
        Dimension("grip", 3, -1),
    )
    value = {"arm": {"position": np.array([[0.5], [1.0]])}, "grip": -1}
    assert numbers(space, value).tolist() == [[0.5, 1.0, -1.0]]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Discrete(3), [Dimension("observation", 3)]),
        (spaces.MultiDiscrete([2, 3], start=[1, 0]), [Dimension("0", 2, 1), Dimension("1", 3)]),
        (spaces.MultiBinary(2), [Dimension("0", 2), Dimension("1", 2)]),
        (spaces.Box(0, 10, (1,), np.int64), [Dimension("0", 11)]),
        (spaces.Box(0, 255, (1,), np.uint8), [Dimension("0")]),
        (spaces.Discrete(MAX_ELEMENTS + 1), [Dimension("observation")]),
        (spaces.Box(-1, 1, ()), [Dimension("observation")]),
    ],
)
def test_values_of_few_kinds_are_categories(space, expected):
    assert list(Dimensions(space).all) == expected


@pytest.mark.parametrize("shape", [(16, 12, 3), (3, 16, 12)])
def test_an_image_is_reduced_to_mean_and_deviation_of_each_channel(shape):
    space = spaces.Box(0, 255, shape, np.uint8)
    image = np.zeros(shape, np.uint8)
    channel = (..., 1) if shape[-1] == 3 else (1,)
    image[channel] = np.arange(192).reshape(16, 12)
    assert [each.name for each in Dimensions(space).all[:3]] == ["channel 0 mean", "channel 0 std", "channel 1 mean"]
    expected = [0, 0, np.mean(np.arange(192)), np.std(np.arange(192)), 0, 0]
    np.testing.assert_allclose(numbers(space, image)[0], expected, rtol=1e-6)


def test_a_large_array_is_reduced_to_its_mean_and_deviation():
    space = spaces.Dict(rays=spaces.Box(0, 9, (MAX_ELEMENTS + 1,)))
    assert [each.name for each in Dimensions(space).all] == ["rays mean", "rays std"]
    values = np.arange(MAX_ELEMENTS + 1) % 5
    np.testing.assert_allclose(numbers(space, {"rays": values})[0], [values.mean(), values.std()], rtol=1e-6)


def test_infinities_and_nan_become_finite_numbers():
    found = numbers(spaces.Box(-np.inf, np.inf, (3,)), np.array([np.inf, -np.inf, np.nan]))
    assert found.tolist() == [[np.finfo(np.float32).max, np.finfo(np.float32).min, 0]]
