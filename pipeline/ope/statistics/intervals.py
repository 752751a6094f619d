"""One-sided confidence bounds of an estimate.

Student's t is too optimistic on one side if the influences are skewed, as where a few episodes are disasters. Hall
(1992) corrects for the skewness by a cubic transformation, which is monotone. Each bound is the wider of both: the
transformation narrows the interval on the other side, and the skewness is itself an estimate.
"""

import math

import numpy as np

from pipeline.ope.statistics.estimators import Estimate


def lower_bound(estimate: Estimate, alpha: float, effective: float) -> float:
    """Return a bound above which the true value lies with a probability of 1 - alpha.

    Args:
        estimate: The estimate.
        alpha: The probability that the value is below.
        effective: The effective number of episodes; Student's t has one degree of freedom less.
    """
    return estimate.value - _quantile(estimate, alpha, effective) * estimate.standard_error


def upper_bound(estimate: Estimate, alpha: float, effective: float) -> float:
    """Return a bound below which the true value lies with a probability of 1 - alpha. As `lower_bound`."""
    mirrored = Estimate(-estimate.value, -estimate.influence)
    return -lower_bound(mirrored, alpha, effective)


def _quantile(estimate: Estimate, alpha: float, effective: float) -> float:
    """Return how many standard errors the lower bound is below the estimate."""
    from scipy.stats import t

    if effective <= 1 or not estimate.standard_error:
        return math.inf if effective <= 1 else 0.0
    student = float(t.ppf(1 - alpha, effective - 1))
    return max(student, _hall(_skewness(estimate), student))


def _skewness(estimate: Estimate) -> float:
    """Return the skewness of the mean influence."""
    centered = estimate.influence - estimate.influence.mean()
    return float((centered**3).mean() / centered.std() ** 3) / math.sqrt(len(centered))


def _hall(skewness: float, quantile: float) -> float:
    """Return the inverse of Hall's transformation x + skewness x^2 / 3 + skewness^2 x^3 / 27 + skewness / 6."""
    if abs(skewness) < 1e-9:  # noqa: PLR2004  # the limit for 0
        return quantile
    return 3 / skewness * (float(np.cbrt(1 + skewness * (quantile - skewness / 6))) - 1)
