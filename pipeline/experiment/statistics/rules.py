"""The rules of an experiment, which are fixed before its first episode."""

import math
from dataclasses import dataclass

from pipeline.experiment.errors import RulesInvalid

MINIMUM_EPISODES = 50
"""The settled episodes that each arm needs before there are bounds, by default."""


@dataclass(frozen=True)
class Rules:
    """When an experiment is decided, and how.

    Attributes:
        margin: The loss of mean return that is acceptable, in units of the return, at least 0.
        budget: The number of settled episodes, of both arms, after which an undecided experiment is inconclusive.
        expected_return: The champion's mean return before the experiment.
        expected_std: The standard deviation of these returns. It tunes the bounds of `return_bounds` only.
        horizon: The information (see `evidence`) at which the lower bound is tightest; by default that of the budget at
            a share of one half. It affects how soon a decision is reached, not how often it is false.
        alpha: The probability of a false promotion, and that of a false rollback.
        ratio_alpha: The probability that the sample-ratio test blocks an experiment without a cause.
        minimum_episodes: The settled episodes that each arm needs before there are bounds.
        largest_loss: What a catastrophic episode loses, for the floor of the variance; by default |expected_return|.
        default_return: What an episode counts as whose return is not reported in time; by default expected_return -
            largest_loss. It may not be more than `expected_return`: a challenger that crashes its clients would win.
        return_bounds: The smallest and the largest possible return, if they are known. The bounds are then valid for
            any number of episodes, and wider; without them they are asymptotic.

    Raises:
        RulesInvalid: A value is out of its range.
    """

    margin: float
    budget: int
    expected_return: float = 0.0
    expected_std: float | None = None
    horizon: float | None = None
    alpha: float = 0.05
    ratio_alpha: float = 0.01
    minimum_episodes: int = MINIMUM_EPISODES
    largest_loss: float | None = None
    default_return: float | None = None
    return_bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check("margin", self.margin, "a finite number of at least 0", holds=0 <= self.margin < math.inf)
        _check("budget", self.budget, "at least 1", holds=self.budget >= 1)
        _check("minimum_episodes", self.minimum_episodes, "at least 2", holds=self.minimum_episodes >= 2)  # noqa: PLR2004
        for name in ("alpha", "ratio_alpha"):
            _check(name, getattr(self, name), "a number between 0 and 0.5", holds=0 < getattr(self, name) < 0.5)  # noqa: PLR2004
        highest = f"at most the expected return, {self.expected_return:g}"
        _check("default_return", self.default_return, highest, holds=self.unreported_return <= self.expected_return)
        if self.return_bounds is not None:
            low, high = self.return_bounds
            expected = "two finite numbers with the expected and the default return between them"
            between = (
                -math.inf < low <= self.unreported_return and self.expected_return <= high < math.inf and low < high
            )
            _check("return_bounds", self.return_bounds, expected, holds=between)

    @property
    def loss(self) -> float:
        """What a catastrophic episode loses."""
        return abs(self.expected_return) if self.largest_loss is None else self.largest_loss

    @property
    def unreported_return(self) -> float:
        """What an episode counts as whose return is not reported in time."""
        return self.expected_return - self.loss if self.default_return is None else self.default_return

    @property
    def promotion_horizon(self) -> float:
        """The information at which the lower bound is tightest."""
        return self.budget / 4 if self.horizon is None else self.horizon


def _check(rule: str, value: object, expected: str, *, holds: bool) -> None:
    if not holds:
        raise RulesInvalid(rule, value, expected)
