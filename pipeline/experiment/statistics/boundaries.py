"""Boundaries that a sum with mean 0 ever crosses with a probability of at most alpha, however often one looks.

All functions take the intrinsic time v of the sum, its variance so far, as a number or an array of any shape.
"""

import math
from typing import Any

import numpy as np

_BISECTIONS = 60


def best_rho(v: float, alpha: float) -> float:
    """Return the parameter rho with which a one-sided boundary is tightest at the time v.

    It is the approximation for the two-sided normal mixture at 2 alpha: Howard, Ramdas, McAuliffe and Sekhon (2021),
    section 3.5, and Waudby-Smith et al. (2024), appendix B.2, whose rho**2 is 1 / rho here.
    """
    evidence = -2 * math.log(2 * alpha)
    return v / (evidence + math.log(1 + evidence))


def normal_mixture(v: Any, rho: float, alpha: float) -> Any:
    """Return the one-sided normal-mixture boundary, for a sum of normal variables or, with large v, of any.

    Mixing exp(a S - a**2 v / 2) over a half-normal a > 0 with the variance 1 / rho gives
    2 sqrt(rho / (v + rho)) exp(x**2 / 2) Phi(x) with x = S / sqrt(v + rho), a supermartingale that begins at 1 (Howard,
    Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of
    Statistics 2021, arXiv 1810.08240, proposition 6). Because Phi(x) >= 1 - exp(-x**2 / 2), it has reached 1 / alpha
    where

        S = sqrt(2 (v + rho) log(1 + sqrt((v + rho) / rho) / (2 alpha))),

    the closed form of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and
    asymptotic confidence sequences", Annals of Statistics 2024, arXiv 2103.06476, in its appendix on one-sided
    sequences.
    """
    return np.sqrt(2 * (v + rho) * np.log1p(np.sqrt((v + rho) / rho) / (2 * alpha)))


def gamma_exponential_mixture(v: Any, rho: float, alpha: float) -> Any:
    """Return the gamma-exponential-mixture boundary, for a sub-exponential sum with the scale 1.

    Howard et al. (2021), proposition 9 with c = 1: the boundary is the sum s at which their supermartingale m(s, v)
    reaches 1 / alpha. It has no closed form; m grows with s, so bisection finds it.
    """
    v = np.asarray(v, np.float64)
    low, high = np.zeros_like(v), 2 * normal_mixture(v, rho, alpha) + 4 * (1 - math.log(alpha))
    while np.any(short := _log_gamma_exponential(high, v, rho) < -math.log(alpha)):
        high = np.where(short, 2 * high, high)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        reached = _log_gamma_exponential(middle, v, rho) >= -math.log(alpha)
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high


def _log_gamma_exponential(s: Any, v: Any, rho: float) -> Any:
    """Return the logarithm of m(s, v). scipy's `gammainc` is the regularized lower incomplete gamma function."""
    from scipy.special import gammainc, gammaln

    constant = rho * math.log(rho) - gammaln(rho) - np.log(gammainc(rho, rho))
    shape, rate = v + rho, s + v + rho
    return constant + gammaln(shape) + np.log(gammainc(shape, rate)) - shape * np.log(rate) + s + v
