"""The trend of a training is told from its curves, and noise is not taken for one."""

import math

import numpy as np
import pytest

from pipeline.evaluation.trend import Trend, of_curves

NOISE = np.random.default_rng(1).normal(0, 20, 24)


def curve(values):
    return [(1000 * number, float(value)) for number, value in enumerate(values, 1)]


def shaped(*levels, noise=1.0):
    """A curve through these levels, as long as NOISE."""
    places = np.linspace(0, 1, len(levels))
    return curve(np.interp(np.linspace(0, 1, len(NOISE)), places, levels) + noise * NOISE)


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        pytest.param(shaped(-500, -300), Trend.RISING, id="steady"),
        pytest.param(shaped(-500, -500, -200), Trend.RISING, id="late"),
        pytest.param(curve([-500, -480, -470, -450, -410]), Trend.RISING, id="few evaluations"),
        pytest.param(shaped(-500, -200, -200, -200), Trend.FLAT, id="saturated"),
        pytest.param(shaped(-200, -200), Trend.FLAT, id="noise"),
        pytest.param(curve([-500, -480]), Trend.FLAT, id="too few evaluations"),
        pytest.param(shaped(-500, -200, -400, -400), Trend.FALLING, id="collapse"),
        pytest.param(shaped(-200, -500), Trend.FALLING, id="from the start"),
        pytest.param(shaped(-500, -200, -215), Trend.FLAT, id="a small loss after a large gain"),
        pytest.param(curve([-200] * 24), Trend.CONSTANT, id="no difference"),
        pytest.param([], Trend.CONSTANT, id="no evaluation"),
    ],
)
def test_greedy_returns_have_a_trend(evaluation, expected):
    assert of_curves(evaluation, []) == expected


def test_training_returns_that_rise_count_where_greedy_returns_do_not_differ_yet():
    greedy = curve([-200] * 24)
    assert of_curves(greedy, shaped(-200, -180)) == Trend.RISING
    assert of_curves(greedy, [(100, math.nan), *curve([-200.0] * 24)]) == Trend.CONSTANT
    assert of_curves(greedy, shaped(-190, -190)) == Trend.FLAT


def test_training_returns_that_rise_do_not_excuse_greedy_returns_that_fell():
    assert of_curves(shaped(-500, -200, -400, -400), shaped(-500, -300)) == Trend.FALLING


def test_noise_that_shrinks_is_no_better_policy():
    greedy, towards, beyond = curve([0] * 24), shaped(-30, -5, noise=0.02), shaped(-30, 20, noise=0.02)
    assert of_curves(greedy, towards, is_gaussian=True) == Trend.FLAT
    assert of_curves(greedy, beyond, is_gaussian=True) == Trend.RISING
    assert of_curves(greedy, towards) == Trend.RISING  # discrete actions: the probabilities are the policy
    assert of_curves(shaped(-30, -5), towards, is_gaussian=True) == Trend.RISING


@pytest.mark.parametrize("number", [6, 12, 40])
def test_noise_is_seldom_taken_for_a_trend(number):
    rng = np.random.default_rng(number)
    found = [of_curves(curve(rng.normal(size=number)), []) for _ in range(100)]
    assert found.count(Trend.RISING) <= 10
    assert found.count(Trend.FALLING) <= 15
