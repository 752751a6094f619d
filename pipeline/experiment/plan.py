"""How many episodes an experiment needs, computed before it starts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from pipeline.experiment.errors import MarginZero, RulesInvalid
from pipeline.experiment.statistics.boundaries import best_rho, normal_mixture
from pipeline.experiment.statistics.decision import LOST_EPISODES, ROLLBACK_HORIZON
from pipeline.experiment.statistics.rules import MINIMUM_EPISODES, Rules

MEDIAN, LIKELY = 0.5, 0.8
"""The shares of the experiments that are decided with the planned numbers of episodes."""

_LARGEST_RETURN = 1e100  # Its square is a finite float, too.
_MOST_INFORMATION = 2.0**60
_BISECTIONS = 100


@dataclass(frozen=True)
class Baseline:
    """The champion's returns before an experiment.

    Attributes:
        mean: Their mean.
        std: Their standard deviation, which the challenger's returns are assumed to have, too.
        episodes_per_day: How many episodes begin in a day; None if that is unknown.

    Raises:
        RulesInvalid: A value is out of its range.
    """

    mean: float
    std: float
    episodes_per_day: float | None = None

    def __post_init__(self) -> None:
        limit = f"{_LARGEST_RETURN:g}"
        if not abs(self.mean) < _LARGEST_RETURN:
            raise RulesInvalid("The mean return", self.mean, f"a number between -{limit} and {limit}")
        if not 0 <= self.std < _LARGEST_RETURN:
            raise RulesInvalid("The standard deviation of the returns", self.std, f"a number from 0 to {limit}")


@dataclass(frozen=True)
class Need:
    """The settled episodes that decide an experiment with the probability `power`, or a little more.

    Attributes:
        power: The probability.
        episodes: The episodes of both arms.
        challengers: Those of the challenger.
        information: Their information; see `statistics.evidence`.
        days: How long they take; None if the rate is unknown.
    """

    power: float
    episodes: int
    challengers: int
    information: float
    days: float | None


@dataclass(frozen=True)
class Plan:
    """What an experiment costs.

    Attributes:
        rules: The rules that the experiment would have. Its budget promotes an equal challenger with LIKELY.
        share: The challenger's share of the episodes.
        promotion: What promotes a challenger that is as good as the champion, with MEDIAN and with LIKELY.
        rollback: What rolls back a challenger that loses half of the champion's mean return; empty if that is 0.
    """

    rules: Rules
    share: float
    promotion: tuple[Need, ...]
    rollback: tuple[Need, ...]


def plan(
    baseline: Baseline, margin: float, share: float = 0.5, alpha: float = 0.05, minimum_episodes: int = MINIMUM_EPISODES
) -> Plan:
    """Return the plan of an experiment.

    The estimated difference is about normal with the variance std**2 / information. So the bound has passed its limit
    with a probability where the distance between the true difference and the limit is the half-width of the bound plus
    the probability's normal quantile, in standard errors. Some experiments pass it earlier and fall back, so that a few
    more are decided by then.

    Args:
        baseline: The champion's returns.
        margin: The loss of mean return that is acceptable, in units of the return.
        share: The challenger's share of the episodes.
        alpha: The probability of a false promotion, and that of a false rollback.
        minimum_episodes: The settled episodes that each arm needs before there are bounds.

    Raises:
        MarginZero: The margin is 0.
        RulesInvalid: A value is out of its range.
    """
    if margin == 0:
        raise MarginZero
    if not 0 < share < 1:
        raise RulesInvalid("share", share, "a number between 0 and 1")
    known: dict[str, Any] = {"alpha": alpha, "minimum_episodes": minimum_episodes}
    draft = Rules(margin, 1, baseline.mean, baseline.std, **known)
    likely = _need(baseline, draft, share, LIKELY, margin, lambda information: information)
    horizon = likely.information
    median = _need(baseline, draft, share, MEDIAN, margin, lambda _: horizon)
    loss, powers = abs(baseline.mean) / 2, (MEDIAN, LIKELY) if baseline.mean else ()
    rollback = [_need(baseline, draft, share, power, loss, lambda _: ROLLBACK_HORIZON) for power in powers]
    rules = Rules(margin, likely.episodes, baseline.mean, baseline.std, horizon=horizon, **known)
    return Plan(rules, share, (median, likely), tuple(rollback))


def _need(
    baseline: Baseline, rules: Rules, share: float, power: float, distance: float, horizon: Callable[[float], float]
) -> Need:
    """Return what it takes until a bound excludes a difference at a distance, tuned to a horizon of the information."""

    def decides(information: float) -> bool:
        std = math.sqrt(baseline.std**2 + LOST_EPISODES * rules.loss**2 * max(share, 1 - share) / information)
        boundary = float(normal_mixture(information, best_rho(horizon(information), rules.alpha), rules.alpha))
        quantile = NormalDist().inv_cdf(power) * baseline.std / math.sqrt(information)
        return std * boundary / information + quantile <= distance

    information = _smallest(decides, share * (1 - share) * _with_minimum(rules.minimum_episodes, share, power))
    episodes = math.ceil(information / (share * (1 - share)))
    days = episodes / baseline.episodes_per_day if baseline.episodes_per_day else None
    return Need(power, episodes, math.ceil(share * episodes), information, days)


def _with_minimum(minimum: int, share: float, power: float) -> float:
    """Return after how many episodes the smaller arm has the minimum of them, with the probability `power`.

    Its number is binomial, about normal: n s - z sqrt(n s (1 - s)) = minimum, solved for sqrt(n).
    """
    smaller = min(share, 1 - share)
    spread = NormalDist().inv_cdf(power) * math.sqrt(smaller * (1 - smaller))
    return float(((spread + math.sqrt(spread**2 + 4 * smaller * minimum)) / (2 * smaller)) ** 2)


def _smallest(holds: Callable[[float], bool], least: float) -> float:
    """Return the smallest number from `least` on for which a condition holds that holds for all larger ones."""
    low, high = least, _MOST_INFORMATION
    if holds(low):
        return low
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
