"""Probabilities of recorded actions are those that the policy's graph computes, for every kind of action space."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from pipeline.export.action_heads import Heads
from pipeline.ope.statistics.distributions import ActionDistribution

SPACES = [
    spaces.Discrete(3),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [0, -2]]),
    spaces.MultiBinary(3),
    spaces.Box(-1, 2, (2, 2), np.int8),
    spaces.Box(-np.inf, np.inf, (2,)),
    spaces.Box(np.array([-3, -1], np.float32), np.array([5, 7], np.float32)),
    spaces.Box(np.array([[-3, -np.inf]]), np.array([[5, 7.0]]), dtype=np.float64),
    spaces.Dict(grip=spaces.Discrete(3, start=-1), arm=spaces.Box(-1, 1, (2,))),
]


def sampled(space, rows=300):
    heads, generator = Heads(space), np.random.default_rng(0)
    inputs = generator.normal(0, 0.5, (rows, sum(heads.input_sizes))).astype(np.float32)
    parts = [
        generator.gumbel(size=(rows, part.size))
        if part.distribution == "gumbel"
        else generator.normal(size=(rows, part.size))
        for part in heads.noise
    ]
    noise = np.concatenate(parts, axis=1).astype(np.float32)
    actions, logp = heads(torch.from_numpy(inputs), torch.from_numpy(noise))
    return inputs.astype(np.float64), [each.numpy() for each in actions], logp.numpy()


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_probability_of_a_sampled_action_is_that_of_the_graph(space):
    distribution = ActionDistribution(space)
    inputs, actions, logp = sampled(space)
    assert inputs.shape[1] == distribution.inputs
    coded = distribution.coded(actions)
    found = distribution.log_prob(inputs, coded)
    # Clipped numbers have the probability of everything beyond the bound.
    low = [np.full(part.numbers, -np.inf) if not hasattr(part, "low") else part.low for part in distribution._parts]
    high = [np.full(part.numbers, np.inf) if not hasattr(part, "low") else part.high for part in distribution._parts]
    inside = ((coded > np.concatenate(low)) & (coded < np.concatenate(high))).all(axis=1)
    assert inside.sum() > 30
    assert found[inside] == pytest.approx(logp[inside], abs=1e-4)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_greedy_actions_are_those_of_the_graph(space):
    distribution, heads = ActionDistribution(space), Heads(space)
    inputs, *_ = sampled(space, 50)
    actions, _ = heads(torch.from_numpy(inputs.astype(np.float32)), torch.zeros(50, heads.noise_size))
    coded = distribution.coded([each.numpy() for each in actions])
    assert distribution.greedy(inputs) == pytest.approx(coded, abs=1e-5)


def test_the_probability_of_a_clipped_number_is_that_of_everything_beyond_the_bound():
    distribution = ActionDistribution(spaces.Box(-2, 2, (1,)))
    inputs = np.array([[1.0, 0.0]])  # mean 1, which is the bound, and standard deviation 1
    at_bound = distribution.coded([np.array([[2.0]], np.float32)])
    assert np.exp(distribution.log_prob(inputs, at_bound)) == pytest.approx([0.5])
    at_other = distribution.coded([np.array([[-2.0]], np.float32)])  # two standard deviations below the mean
    assert np.exp(distribution.log_prob(inputs, at_other)) == pytest.approx([0.02275], abs=1e-5)


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([9] * 4)], ids=str)
def test_candidates_stand_for_the_distribution(space):
    distribution = ActionDistribution(space)
    inputs = np.tile(np.random.default_rng(0).normal(size=distribution.inputs), (400, 1))
    actions, weights = distribution.candidates(inputs, np.random.default_rng(1))
    assert weights.sum(axis=1) == pytest.approx(np.ones(400))
    share = (weights * (actions[:, :, 0] == 1)).sum(axis=1).mean()
    logits = inputs[0, : space.nvec[0]]
    assert share == pytest.approx(np.exp(logits[1]) / np.exp(logits).sum(), abs=0.02)
