"""Observations of every kind become the numbers that a network computes with."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from pipeline.environments.images import is_image
from pipeline.environments.nested_spaces import flatten, nest
from pipeline.networks.modules import Preprocessor
from serving.policy.spaces import leaves
from tests.pipeline.zoo import NESTED


@pytest.mark.parametrize(
    ("space", "value", "expected"),
    [
        (spaces.Discrete(3, start=-1), 0, [0, 1, 0]),
        (spaces.MultiDiscrete([2, 3], start=[1, -2]), [2, -2], [0, 1, 1, 0, 0]),
        (spaces.MultiBinary((2, 2)), [[0, 1], [1, 1]], [0, 1, 1, 1]),
        (spaces.Box(-np.inf, np.inf, (2, 2), np.float64), [[1, 2], [3, 4]], [1, 2, 3, 4]),
        (spaces.Box(0, 255, (2,), np.uint8), [0, 51], [0, 0.2]),
        (spaces.Box(-3, 9, (2,), np.int32), [-3, 9], [0, 1]),
        (spaces.Box(-5, 5, (), np.float32), 2.5, [2.5]),
    ],
    ids=str,
)
def test_a_leaf_becomes_a_vector(space, value, expected):
    vector = Preprocessor(space)(torch.from_numpy(np.array([value], space.dtype)))
    assert vector.dtype == torch.float32
    np.testing.assert_allclose(vector[0], expected)


def test_leading_dimensions_stay():
    flat = [np.asarray(leaf, each.space.dtype) for leaf, each in zip(flatten(NESTED, NESTED.sample()), leaves(NESTED))]  # noqa: B905  # of one space
    steps = nest(NESTED, [torch.from_numpy(np.stack([[each] * 3] * 2)) for each in flat])
    size = 3 + 2 + 3 + 10 * 12 * 3 + 1 + 2 + 3 + 4 + 5
    assert Preprocessor(NESTED)(steps).shape == (2, 3, size)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((84, 84, 4), True), ((3, 16, 20), True), ((8, 8, 1), True), ((4, 4, 3), False), ((20, 20, 20), False)],
)
def test_images_are_known_by_their_shape(shape, expected):
    assert is_image(spaces.Box(0, 1, shape, np.float32)) == expected
