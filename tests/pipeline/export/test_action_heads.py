"""The heads turn distribution inputs into the actions that RLlib and the environment's adapter give, for any space."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.utils.spaces.space_utils import unsquash_action
from scipy.special import log_softmax

from pipeline.environments.action_adapters import adapted, from_policy
from pipeline.export.action_heads import Heads

BATCH = 50

CHOICES = {
    "Discrete": spaces.Discrete(3),
    "Discrete from 5": spaces.Discrete(3, start=5),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiDiscrete of one": spaces.MultiDiscrete([4]),
    "MultiDiscrete of two dimensions": spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 1], [2, 3]]),
    "MultiBinary": spaces.MultiBinary(3),
    "MultiBinary of two dimensions": spaces.MultiBinary((2, 2)),
    "integers": spaces.Box(np.array([-1, 2]), np.array([1, 5]), dtype=np.int32),
    "one integer without dimensions": spaces.Box(-2, 2, (), np.int64),
    "integers of two dimensions": spaces.Box(0, 3, (2, 2), np.uint8),
}

NUMBERS = {
    "bounded": spaces.Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32)),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "of two dimensions": spaces.Box(-3, 1, (2, 2), np.float32),
    "without dimensions": spaces.Box(-1, 3, (), np.float32),
    "of float64, bounded on one side": spaces.Box(np.array([0.0, -np.inf]), np.array([np.inf, 0.5]), dtype=np.float64),
}


def computed(space, noise_scale=0.0):
    """Return the heads' random inputs, their noise, and their actions and log-probabilities, all as arrays."""
    generator = torch.Generator().manual_seed(0)
    heads = Heads(space)
    inputs = torch.randn(BATCH, sum(heads.input_sizes), generator=generator)
    noise = noise_scale * torch.randn(BATCH, heads.noise_size, generator=generator)
    actions, logp = heads(inputs, noise)
    return inputs.numpy(), noise.numpy(), [each.numpy() for each in actions], logp.numpy()


def chosen(inputs, noise, space):
    """Return the policy's own choices, and the sum of their log-probabilities, from logits and their noise."""
    trained = adapted(space)
    sizes = [trained.n] if isinstance(trained, spaces.Discrete) else list(trained.nvec)
    splits = np.cumsum(sizes)[:-1]
    choices, logp = [], 0.0
    for logits, added in zip(np.split(inputs, splits, axis=1), np.split(noise, splits, axis=1), strict=True):
        choices.append((logits + added).argmax(axis=1))
        logp = logp + log_softmax(logits, axis=1)[np.arange(BATCH), choices[-1]]
    stacked = choices[0] if isinstance(trained, spaces.Discrete) else np.stack(choices, axis=1)
    return stacked, logp


def assert_in_space(space, actions):
    assert actions.dtype == space.dtype
    assert actions.shape == (BATCH, *space.shape)
    assert all(space.contains(each) for each in np.array(actions)) or not space.shape


@pytest.mark.parametrize("space", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("noise_scale", [0.0, 1.0])
def test_choices_are_the_most_probable_values_after_the_noise(space, noise_scale):
    inputs, noise, (actions,), logp = computed(space, noise_scale)
    choices, expected_logp = chosen(inputs, noise, space)
    assert_in_space(space, actions)
    np.testing.assert_array_equal(actions, [from_policy(space, choice) for choice in choices])
    np.testing.assert_allclose(logp, expected_logp, rtol=1e-5)


@pytest.mark.parametrize("space", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("noise_scale", [0.0, 1.0])
def test_numbers_are_the_mean_plus_the_noise_scaled_to_the_bounds(space, noise_scale):
    inputs, noise, (actions,), logp = computed(space, noise_scale)
    mean, log_std = np.split(inputs, 2, axis=1)
    own = mean + np.exp(log_std) * noise
    trained = adapted(space)
    unsquashed = [unsquash_action(each, trained) if trained.is_bounded() else each for each in own]
    assert_in_space(space, actions)
    np.testing.assert_allclose(actions, [from_policy(space, each) for each in unsquashed], rtol=1e-5, atol=1e-6)
    densities = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(logp, densities.sum(axis=1), rtol=1e-4)


def test_each_leaf_of_a_nested_space_has_its_part_of_the_inputs():
    left, right = spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)
    inputs, _, (choices, numbers), logp = computed(spaces.Dict(left=left, right=right))
    heads = [Heads(left), Heads(right)]
    parts = [torch.from_numpy(part) for part in (inputs[:, :3], inputs[:, 3:])]
    (alone, alone_logp), (beside, beside_logp) = (
        head(part, torch.zeros(1, head.noise_size)) for head, part in zip(heads, parts, strict=True)
    )
    np.testing.assert_array_equal(choices, alone[0])
    np.testing.assert_array_equal(numbers, beside[0])
    np.testing.assert_allclose(logp, alone_logp + beside_logp)
