"""Bounds of the difference of the mean returns, and the decision that follows from them."""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from pipeline.experiment.statistics.boundaries import best_rho, gamma_exponential_mixture, normal_mixture
from pipeline.experiment.statistics.evidence import Evidence
from pipeline.experiment.statistics.rules import Rules

ROLLBACK_HORIZON = 50.0
"""The information at which the upper bound is tightest: a challenger to take back should be found early."""

LOST_EPISODES = 2
"""How many episodes of the smaller arm the variance adds as lost, as the interval of Agresti and Coull (1998) does.

With one, a challenger that fails rarely is promoted too often: in 8% of the experiments at a share of a tenth.
"""


class Decision(IntEnum):
    """What an experiment has led to."""

    CONTINUE = 0
    """More episodes are needed."""
    PROMOTE = 1
    """The challenger is not worse than the champion by more than the margin."""
    ROLL_BACK = 2
    """The challenger is worse than the champion."""
    BLOCKED = 3
    """The arms do not report alike, so the challenger is not promoted whatever its returns are."""
    INCONCLUSIVE = 4
    """The budget is used up, and the champion stays."""


class Bounds(NamedTuple):
    """Bounds of the difference of the mean returns, challenger - champion; numbers, or arrays of shape (n,).

    The lower bound is above the difference at any time with a probability of at most alpha, and so is the upper bound
    below it. They are infinite while an arm has fewer than the minimum of episodes.
    """

    lower: Any
    upper: Any


def bounds(evidence: Evidence, rules: Rules) -> Bounds:
    """Return the bounds after the episodes of the evidence."""
    radius = _asymptotic_radius if rules.return_bounds is None else _bounded_radius
    fewest = np.minimum(evidence.champions, evidence.challengers)
    with np.errstate(invalid="ignore"):
        lower = evidence.difference - radius(evidence, rules, rules.promotion_horizon)
        upper = evidence.difference + radius(evidence, rules, ROLLBACK_HORIZON)
    enough = fewest >= rules.minimum_episodes
    return Bounds(np.where(enough, lower, -np.inf), np.where(enough, upper, np.inf))


def variance(evidence: Evidence, rules: Rules) -> Any:
    """Return the variance of a return: that of the arm where it is larger, and a floor.

    Returns are skewed: an arm with few episodes whose rare failures have not come yet has a mean that is too good *and*
    a variance that is too small. So it is not believed to vary less than the other arm.

    The floor is what LOST_EPISODES more episodes would add if they lost the most, in the arm with fewer episodes.
    Without it, arms that always had the return 500 would be found equal, and arms with 500 and 499 different, after the
    first episodes; but an arm of k episodes without a failure may well fail in one of k (the rule of three: with 95%
    confidence, in at most 3 of k).
    """
    fewest = np.maximum(np.minimum(evidence.champions, evidence.challengers), 1)
    larger = np.maximum(evidence.variance, np.maximum(*evidence.arm_variances))
    return larger + LOST_EPISODES * rules.loss**2 / fewest


def _asymptotic_radius(evidence: Evidence, rules: Rules, horizon: float) -> Any:
    """Return the half-width of the asymptotic confidence sequence.

    Waudby-Smith et al. (2024), theorem 2.2 in its one-sided form, with the information in the place of the number of
    observations, because it is what the variance of the sum is proportional to (their proposition 2.5 allows variances
    that change). Without any variance there is no bound.
    """
    std = np.sqrt(variance(evidence, rules))
    boundary = normal_mixture(evidence.information, best_rho(horizon, rules.alpha), rules.alpha)
    return np.where(std > 0, std * boundary / evidence.information, np.inf)


def _bounded_radius(evidence: Evidence, rules: Rules, horizon: float) -> Any:
    """Return the half-width of the empirical-Bernstein confidence sequence, valid for any number of episodes.

    Howard et al. (2021), theorem 4, for the weighted scores. They lie in an interval that is known before the episode,
    as wide as that of the returns, and contains 0, because the predictions lie between the possible returns. With 0 as
    the prediction of each score, the intrinsic time is the sum of their squares.
    """
    low, high = rules.return_bounds or (0.0, 0.0)
    width = high - low
    std = width / 4 if rules.expected_std is None else max(rules.expected_std, width / 100)
    rho = best_rho(horizon * (std / width) ** 2, rules.alpha)
    boundary = gamma_exponential_mixture(evidence.score_squares / width**2, rho, rules.alpha)
    return width * boundary / evidence.information


def decisions(evidence: Evidence, rules: Rules) -> Any:
    """Return the decision for each of the evidence's episodes, as if it were the last; an array of `Decision`s.

    A rollback needs no sample-ratio test: it is the safe side, and a challenger that reports too little may be bad.
    """
    low, high = bounds(evidence, rules)
    blocked = np.asarray(evidence.ratio) >= -np.log(rules.ratio_alpha)
    used_up = evidence.champions + evidence.challengers >= rules.budget
    found = {
        Decision.ROLL_BACK: high < 0,
        Decision.BLOCKED: blocked,
        Decision.PROMOTE: low > -rules.margin,
        Decision.INCONCLUSIVE: used_up,
    }
    return np.select(list(found.values()), list(found), Decision.CONTINUE)


def decide(evidence: Evidence, rules: Rules) -> Decision:
    """Return the decision for evidence that consists of numbers."""
    return Decision(int(decisions(evidence, rules)))


def first_decision(evidence: Evidence, rules: Rules) -> tuple[int, Decision]:
    """Return after how many episodes an experiment ends that is looked at after each one, and its decision."""
    found = decisions(evidence, rules)
    ends = np.flatnonzero(found)
    return (int(ends[0]) + 1, Decision(int(found[ends[0]]))) if len(ends) else (len(found), Decision.CONTINUE)
