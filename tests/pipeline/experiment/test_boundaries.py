"""The boundaries, beside their definitions and the values of another implementation."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from pipeline.experiment.statistics.boundaries import best_rho, gamma_exponential_mixture, normal_mixture

TIMES = np.array([1.0, 10.0, 100.0, 1000.0, 10000.0])

# Computed with confseq 0.0.11, by the authors of Howard et al. (2021): normal_mixture_bound and
# gamma_exponential_mixture_bound at the times above, by alpha and the time for which they are tuned. Its source needs
# Boost, and a newer pybind11 than it asks for, so it is no dependency, not even of the tests.
NORMAL = {
    (0.05, 10): [3.634305, 8.747084, 29.849977, 105.239701, 365.521156],
    (0.05, 1000): [27.170787, 28.091332, 36.343051, 87.470842, 298.499772],
    (0.01, 10): [4.127986, 10.604555, 35.445897, 121.440553, 412.751486],
    (0.01, 1000): [28.135941, 29.521974, 41.279858, 106.045546, 354.458973],
}
GAMMA_EXPONENTIAL = {
    (0.05, 10): [5.806373, 11.549352, 33.824063, 111.415043, 376.759819],
    (0.05, 1000): [28.867744, 29.809218, 38.226388, 89.980539, 302.172662],
    (0.01, 10): [7.689104, 14.794094, 40.812253, 129.186864, 426.23678],
    (0.01, 1000): [30.91829, 32.33516, 44.313913, 109.777939, 359.406207],
}


@pytest.mark.parametrize(("alpha", "tuned"), GAMMA_EXPONENTIAL)
def test_the_gamma_exponential_boundary_is_that_of_confseq(alpha, tuned):
    found = gamma_exponential_mixture(TIMES, best_rho(tuned, alpha), alpha)
    assert found == pytest.approx(GAMMA_EXPONENTIAL[alpha, tuned], abs=2e-6)


@pytest.mark.parametrize(("alpha", "tuned"), NORMAL)
def test_the_closed_normal_boundary_is_at_most_2_percent_above_the_exact_one_of_confseq(alpha, tuned):
    ratio = normal_mixture(TIMES, best_rho(tuned, alpha), alpha) / NORMAL[alpha, tuned]
    assert (ratio >= 1).all()
    assert (ratio <= 1.02).all()


def test_the_boundaries_are_those_of_confseq_at_random_arguments():
    boundaries = pytest.importorskip(
        "confseq.boundaries", reason="confseq is not installed: pip cannot build it without Boost"
    )
    rng = np.random.default_rng(0)
    for alpha, tuned, v in zip(*(rng.uniform(*each, 50) for each in ((0.001, 0.2), (1, 1e4), (0.5, 1e5))), strict=True):
        rho = best_rho(tuned, alpha)
        theirs = boundaries.gamma_exponential_mixture_bound(v, alpha, tuned, 1.0, alpha)
        assert gamma_exponential_mixture(v, rho, alpha) == pytest.approx(theirs, rel=1e-6)
        exact = boundaries.normal_mixture_bound(v, alpha, tuned, alpha, is_one_sided=True)
        assert 1 <= normal_mixture(v, rho, alpha) / exact < 1.03


@pytest.mark.parametrize("v", [3.0, 40.0, 700.0])
def test_the_normal_mixture_is_at_least_one_over_alpha_on_its_boundary(v):
    """Integrated numerically, from the definition."""
    rho, alpha = best_rho(50.0, 0.05), 0.05
    bound = float(normal_mixture(v, rho, alpha))

    def integrand(a):
        density = 2 * math.sqrt(rho / (2 * math.pi)) * math.exp(-rho * a**2 / 2)
        return density * math.exp(a * bound - a**2 * v / 2)

    mixture, _ = quad(integrand, 0, 20 / math.sqrt(v + rho) + bound / (v + rho))
    assert 1 / alpha <= mixture <= 1.15 / alpha


def test_a_boundary_is_tightest_near_the_time_that_it_is_tuned_for():
    at = [float(normal_mixture(100.0, best_rho(tuned, 0.05), 0.05)) for tuned in (1.0, 100.0, 10000.0)]
    assert at[1] < min(at[0], at[2])


def test_a_random_walk_crosses_its_boundary_with_a_probability_of_at_most_alpha():
    rng = np.random.default_rng(3)
    walks = np.cumsum(rng.standard_normal((400, 1000)), axis=1)
    crossed = (walks >= normal_mixture(np.arange(1.0, 1001), best_rho(300, 0.05), 0.05)).any(axis=1)
    assert crossed.sum() <= 30  # P(more | 5%) is below 1%
