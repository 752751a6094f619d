import numpy as np
import pytest
from gymnasium import spaces
from scipy import integrate, stats

from pipeline.experiment.shadow.distributions import TotalVariation

NUMBER = spaces.Box(-1, 1, (1,))


def of(space, one, other):
    variation = TotalVariation(space)(np.array([one], np.float32), np.array([other], np.float32))
    return float(variation[0])


def test_the_total_variation_of_a_choice_is_exact():
    assert TotalVariation(spaces.Discrete(3)).is_exact
    one, other = np.log([0.5, 0.3, 0.2]), np.log([0.1, 0.3, 0.6])
    assert of(spaces.Discrete(3), one, other) == pytest.approx(0.4)
    assert of(spaces.Discrete(3), one + 7, one) == pytest.approx(0, abs=1e-6)


def test_masked_actions_have_no_probability():
    assert of(spaces.Discrete(2), [0, -np.inf], [-np.inf, 3]) == pytest.approx(1)
    assert np.isnan(of(spaces.Discrete(2), [-np.inf, -np.inf], [0, 0]))
    assert np.isnan(of(spaces.Discrete(2), [np.nan, 0], [0, 0]))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.3, 1.0), (2.0, 0.5), (0.0, 3.0), (20.0, 1.0)])
def test_the_bound_of_gaussians_is_never_below_the_total_variation(mean, deviation):
    bound = of(NUMBER, [0, 0], [mean, np.log(deviation)])
    exact = (
        integrate.quad(
            lambda x: abs(stats.norm.pdf(x) - stats.norm.pdf(x, mean, deviation)), -30, 50, limit=500, points=[0, mean]
        )[0]
        / 2
    )
    coefficient = integrate.quad(
        lambda x: np.sqrt(stats.norm.pdf(x) * stats.norm.pdf(x, mean, deviation)), -30, 50, limit=500, points=[0, mean]
    )[0]
    assert bound == pytest.approx(np.sqrt(max(0, 1 - coefficient**2)), abs=1e-4)
    assert bound >= exact - 1e-6
    assert not TotalVariation(NUMBER).is_exact


def test_very_different_deviations_do_not_overflow():
    assert of(NUMBER, [0, 80], [0, -80]) == pytest.approx(1)


def test_several_parts_have_a_bound_of_all_together():
    space = spaces.MultiDiscrete([2, 2])
    one, other = np.log([0.5, 0.5, 0.8, 0.2]), np.log([0.7, 0.3, 0.5, 0.5])
    exact = np.abs(np.outer([0.5, 0.5], [0.8, 0.2]) - np.outer([0.7, 0.3], [0.5, 0.5])).sum() / 2
    bound = of(space, one, other)
    assert bound == pytest.approx(1 - 0.8 * 0.7)
    assert exact <= bound
    assert not TotalVariation(space).is_exact


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (spaces.Discrete(4, start=3), 4),
        (spaces.MultiBinary(3), 6),
        (spaces.Box(0, 2, (2,), np.int64), 6),
        (spaces.Box(-1, 1, (2, 3)), 12),
        (spaces.Dict(a=spaces.Discrete(2), b=spaces.Box(-1, 1, (2,))), 6),
    ],
)
def test_the_inputs_of_a_distribution_are_those_of_the_graph(space, size):
    assert TotalVariation(space).size == size
    assert of(space, np.zeros(size), np.zeros(size)) == pytest.approx(0, abs=1e-6)
