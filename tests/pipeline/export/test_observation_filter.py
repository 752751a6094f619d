"""The frozen filter computes what RLlib's mean/std filter computes without updates."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.utils.filter import RunningStat

from pipeline.environments.errors import UnsupportedSpace
from pipeline.export.observation_filter import FrozenFilter, check


@pytest.fixture
def frozen():
    """A filter with the statistics of 1,000 observations of mean 1000 and standard deviation 0.01."""
    statistics = RunningStat((2,))
    for observation in np.random.default_rng(0).normal(1000, 0.01, (1000, 2)):
        statistics.push(observation)
    return FrozenFilter({None: {"running_stats": [statistics.to_state()]}})


def test_observations_are_normalized_in_double_precision(frozen):
    normalized = frozen(torch.tensor([[1000.0, 1000.01]]))
    assert normalized.dtype == torch.float32
    np.testing.assert_allclose(normalized, [[0.0, 1.0]], atol=0.1)


def test_normalized_observations_are_clipped(frozen):
    np.testing.assert_array_equal(frozen(torch.tensor([[0.0, 2000.0]])), [[-10.0, 10.0]])


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(0, 255, (2,), np.uint8)], ids=str)
def test_spaces_that_rllibs_filter_does_not_support_are_rejected(space):
    with pytest.raises(UnsupportedSpace, match="mean/std filter does not support it"):
        check(space)
