"""Samples pass if they have RLlib's distribution, and fail if they have another one."""

from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from pipeline.verification.sampling_tests import SAMPLES, check_samples, sampled_queries
from pipeline.verification.subject import Query

CHOICE = spaces.Discrete(50)
CONTINUOUS = spaces.Box(-np.inf, np.inf, (2,), np.float32)


def choices(generator, shift):
    """Return skewed choices, some of which are rare."""
    return {"action": np.minimum(generator.geometric(0.3 + shift, SAMPLES), 50) - 1}


def gaussians(generator, shift):
    return {"action": generator.normal(2 * shift, 1, (SAMPLES, 2)).astype(np.float32)}


def subject(space, draw):
    """Return a subject with 20 queries whose reference draws samples."""
    generator = np.random.default_rng(0)
    reference = SimpleNamespace(sample=lambda *_: draw(generator, 0.0))
    return SimpleNamespace(action_space=space, queries=[Query(index, {}) for index in range(20)], reference=reference)


@pytest.mark.parametrize(("space", "draw"), [(CHOICE, choices), (CONTINUOUS, gaussians)], ids=["choice", "continuous"])
@pytest.mark.parametrize(("shift", "passes"), [(0.0, True), (0.3, False)])
def test_only_samples_of_rllibs_distribution_pass(space, draw, shift, passes):
    policy, generator = subject(space, draw), np.random.default_rng(1)
    check = check_samples("sampled", policy, [draw(generator, shift) for _ in sampled_queries(policy)])
    assert (check.failure is None) == passes
    assert check.count == 5 * SAMPLES


def test_an_action_without_variance_passes():
    policy = subject(CHOICE, lambda *_: {"action": np.zeros(SAMPLES, np.int64)})
    samples = [{"action": np.zeros(SAMPLES, np.int64)} for _ in sampled_queries(policy)]
    assert check_samples("sampled", policy, samples).failure is None


def test_the_sampled_queries_are_spread_over_all():
    assert [query.observation for query in sampled_queries(subject(CHOICE, choices))] == [0, 4, 8, 12, 16]
