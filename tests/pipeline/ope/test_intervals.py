"""Bounds cover at their level, also for the means of skewed numbers."""

import numpy as np
import pytest

from pipeline.ope.statistics.estimators import Estimate
from pipeline.ope.statistics.intervals import lower_bound, upper_bound
from tests.pipeline.experiment.simulation import interval


def estimates(draw, sets, size=150):
    generator = np.random.default_rng(0)
    for _ in range(sets):
        numbers = draw(generator, size)
        yield Estimate(numbers.mean(), numbers - numbers.mean())


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda generator, size: generator.normal(size=size), 0.0),
        (lambda generator, size: generator.exponential(size=size) ** 1.5, 1.3293),
        (lambda generator, size: -(generator.exponential(size=size) ** 1.5), -1.3293),
    ],
    ids=["normal", "right", "left"],
)
def test_both_bounds_cover(draw, mean):
    found = list(estimates(draw, 1000))
    below = sum(lower_bound(each, 0.05, 150) > mean for each in found)
    above = sum(upper_bound(each, 0.05, 150) < mean for each in found)
    for misses in (below, above):
        low, _ = interval(misses, len(found))
        assert low <= 0.06


def test_bounds_without_skewness_are_those_of_student():
    estimate = Estimate(3.0, np.array([1.0, -1.0] * 50))
    from scipy.stats import t

    width = t.ppf(0.95, 79) * estimate.standard_error
    assert lower_bound(estimate, 0.05, 80) == pytest.approx(3 - width)
    assert upper_bound(estimate, 0.05, 80) == pytest.approx(3 + width)


def test_without_variance_the_bounds_are_the_value_and_without_episodes_there_are_none():
    constant = Estimate(3.0, np.zeros(100))
    assert lower_bound(constant, 0.05, 100) == 3 == upper_bound(constant, 0.05, 100)
    assert lower_bound(constant, 0.05, 1) != lower_bound(constant, 0.05, 100)
