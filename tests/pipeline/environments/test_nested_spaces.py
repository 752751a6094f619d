"""Nested values are converted to arrays by leaf and back, in the order of the graph's tensors."""

import numpy as np
import pytest
from gymnasium import spaces

from pipeline.environments.nested_spaces import flatten, nest, stack, unstack
from serving.policy.spaces import leaves
from tests.pipeline.zoo import NESTED

UNSORTED = spaces.Dict({"b": spaces.Discrete(3), "a": spaces.Tuple([spaces.Discrete(5), spaces.Discrete(7)])})


def test_leaves_are_ordered_by_sorted_keys_and_by_index():
    assert flatten(UNSORTED, {"b": 0, "a": (1, 2)}) == [1, 2, 0]
    assert [leaf.tensor("action") for leaf in leaves(UNSORTED)] == ["action.a.0", "action.a.1", "action.b"]


def test_nest_undoes_flatten():
    value = {"b": 0, "a": (1, 2)}
    assert nest(UNSORTED, flatten(UNSORTED, value)) == value


@pytest.mark.parametrize("space", [NESTED, spaces.Discrete(3), spaces.Box(-1, 1, (2, 3))], ids=["nested", "int", "box"])
def test_unstack_undoes_stack(space):
    space.seed(0)
    values = [space.sample() for _ in range(4)]
    batch = stack(space, values, "observations")
    for leaf in leaves(space):
        tensor = batch[leaf.tensor("observations")]
        assert (tensor.shape, tensor.dtype) == ((4, *(leaf.space.shape or ())), leaf.space.dtype)
    for value, found in zip(values, unstack(space, batch, "observations"), strict=True):
        for expected, leaf in zip(flatten(space, value), flatten(space, found), strict=True):
            np.testing.assert_array_equal(leaf, expected)
