"""Judges a target from recorded episodes: better, worse, or cannot tell."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from pipeline.ope.statistics.distributions import ActionDistribution
from pipeline.ope.statistics.estimators import (
    Estimate,
    combined,
    mean_return,
    per_decision,
    weighted_doubly_robust,
)
from pipeline.ope.statistics.fitted_q import fit
from pipeline.ope.statistics.intervals import lower_bound, upper_bound
from pipeline.ope.statistics.logs import Floats, Logs
from pipeline.ope.statistics.weights import MAX_UNSUPPORTED, TargetActions, weigh

MIN_EFFECTIVE = 100
"""The effective sample size from which on an answer is given."""


class Answer(StrEnum):
    """What recorded episodes say about a target."""

    BETTER = "better"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Settings:
    """The settings of an evaluation.

    Attributes:
        gamma: The discount factor. Without one, the value of a version is its mean return.
        alpha: The probability of a false `better`, and that of a false `worse`.
    """

    gamma: float = 1.0
    alpha: float = 0.05


@dataclass(frozen=True)
class Value:
    """What the episodes say about the value of one target.

    Attributes:
        fitted_q: `[seeds]`: the estimates of fitted Q evaluation.
        per_decision: The estimate by per-decision importance sampling; None if the target has no weights, as below.
        lower: The weighted doubly robust estimates, one per seed, if what is beyond the support returns as little as
            anything that was recorded.
        upper: The same, if it returns as much.
        effective: The effective number of episodes.
        unsupported: The share of the target's steps at which it leaves the support.
        episodes: The episodes of the versions that support it.
    """

    fitted_q: Floats
    per_decision: Estimate | None = None
    lower: Sequence[Estimate] = ()
    upper: Sequence[Estimate] = ()
    effective: float = 0.0
    unsupported: float = 1.0
    episodes: int = 0

    @property
    def doubly_robust(self) -> Estimate | None:
        """The weighted doubly robust estimate: the middle of `lower` and `upper`."""
        return combined([*self.lower, *self.upper]) if self.lower else None


@dataclass(frozen=True)
class Judgement:
    """The answer, and what it follows from.

    Attributes:
        answer: The answer.
        reasons: Why it is not another; for `cannot tell`, what is missing.
        value: The target's value.
        baseline: The mean of the recorded returns.
        against: The value of the version that it is compared with; None if that is the recorded behaviour.
        lower: The one-sided lower bound of the difference of the values; None if it is unknown.
        upper: The upper bound.
    """

    answer: Answer
    reasons: Sequence[str]
    value: Value
    baseline: Estimate
    against: Value | None = None
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Judge:
    """Judges targets from the same episodes.

    Attributes:
        logs: Recorded episodes.
        distribution: The distribution of their actions.
        settings: The settings.
        advance: Is called after each fitted model.
    """

    logs: Logs
    distribution: ActionDistribution
    settings: Settings = field(default_factory=Settings)
    advance: Callable[[], None] = field(default=lambda: None)

    def value(self, target: TargetActions, *, has_weights: bool = True) -> Value:
        """Return the value of a target. Without weights, only a model can be fitted."""
        logs, gamma = self.logs, self.settings.gamma
        sizes = self.distribution.choice_sizes
        if not has_weights:
            nothing = np.zeros((logs.steps, target.actions.shape[1]), np.bool_)
            return Value(fit(logs, target, nothing, sizes, gamma, self.advance).estimates)
        weights = weigh(logs, target, self.distribution)
        fitted = fit(logs, target, weights.lost, sizes, gamma, self.advance)
        to_go = logs.returns_to_go(gamma)

        def estimates(beyond: float) -> list[Estimate]:
            return [weighted_doubly_robust(logs, weights, each, gamma, beyond) for each in fitted.values]

        lower = estimates(float(to_go.min()))
        is_lost = bool((weights.before * weights.lost_share).any())
        return Value(
            fitted_q=fitted.estimates,
            per_decision=per_decision(logs, weights, gamma),
            lower=lower,
            upper=estimates(float(to_go.max())) if is_lost else lower,
            effective=weights.effective_episodes(logs),
            unsupported=weights.unsupported(logs, weights.active),
            episodes=int(weights.active.sum()),
        )

    def judge(self, value: Value, against: Value | None = None) -> Judgement:
        """Return the answer for a value, against that of another target or the recorded behaviour."""
        baseline = mean_return(self.logs, self.settings.gamma)
        missing = [*_missing(value, "it"), *(_missing(against, "the other version") if against else [])]
        effective = min(value.effective, against.effective if against else math.inf)
        if effective <= 1:
            return Judgement(Answer.CANNOT_TELL, missing, value, baseline, against)
        lowest, highest = self._differences(value, baseline, against)
        lower = lower_bound(lowest, self.settings.alpha, effective)
        upper = upper_bound(highest, self.settings.alpha, effective)
        answer, reasons = Answer.CANNOT_TELL, missing
        if not missing and lower > 0:
            answer = Answer.BETTER
        elif not missing and upper < 0:
            answer = Answer.WORSE
        elif not missing:
            reasons = ["the interval of the difference contains 0"]
        return Judgement(answer, reasons, value, baseline, against, lower, upper)

    @staticmethod
    def _differences(value: Value, baseline: Estimate, against: Value | None) -> tuple[Estimate, Estimate]:
        """Return the least and the greatest difference that the support allows."""
        count = len(value.lower)
        others = (against.lower, against.upper) if against else ([baseline] * count, [baseline] * count)
        least = combined([own - other for own, other in zip(value.lower, others[1], strict=True)])
        return least, combined([own - other for own, other in zip(value.upper, others[0], strict=True)])


def _missing(value: Value, who: str) -> list[str]:
    """Return what is missing for an answer."""
    if not value.lower:
        only = "only fitted Q evaluation is possible, and it is not enough for an answer"
        return [f"{who} takes greedy actions from a continuous space, which no recorded action equals: {only}"]
    found = []
    if value.unsupported > MAX_UNSUPPORTED:
        found.append(
            f"at {value.unsupported:.0%} of the steps {who} takes actions that were recorded never or almost never; "
            "greedy versions record only their own. Serve with explore_share, and record more"
        )
    if value.effective < MIN_EFFECTIVE:
        found.append(
            f"{who} acts so differently that the {value.episodes:,} episodes count like {value.effective:.0f}, fewer "
            f"than {MIN_EFFECTIVE}"
        )
    return found
