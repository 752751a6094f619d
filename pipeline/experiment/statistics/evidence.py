"""What the settled episodes of an experiment say about the difference of the arms' mean returns, as running sums.

An episode with the challenger's probability p (its share), the arm A (1 for the challenger, 0 for the champion) and the
return R has the score of augmented inverse-probability weighting, AIPW (Robins, Rotnitzky and Zhao 1994; for
experiments that are watched as they run: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Annals of Statistics 2024,
arXiv 2103.06476, section 3)

    xi = f1 - f0 + A (R - f1) / p - (1 - A) (R - f0) / (1 - p),

where f1 and f0 predict the return in each arm from *earlier* episodes only. Whatever the predictions are, the mean of
xi given the earlier episodes is the difference of the arms' mean returns; good predictions make its variance small.

The variance of xi is about std**2 / (p (1 - p)), so scores from a time with another share are weighted by p (1 - p):

    p (1 - p) xi = (A - p) (R - m),    m = (1 - p) f1 + p f0.

The sum of the weights p (1 - p) is called information here. It counts episodes: an experiment at a share of one half
has a quarter of its episodes as information, one at a small share p has about p of them, which is the number of the
challenger's.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.experiment.errors import EpisodeInvalid
from pipeline.experiment.statistics.episodes import Episodes
from pipeline.experiment.statistics.rules import Rules
from pipeline.experiment.statistics.sample_ratio import log_e_values

Floats = NDArray[np.float64]

PRIOR_EPISODES = 10
"""How many episodes the starting point of a prediction counts for."""


@dataclass(frozen=True)
class Evidence:
    """Sums over the episodes so far: numbers, or arrays with the sums after each of n episodes, of shape (n,)."""

    champions: "float | Floats"
    """The champion's episodes."""
    challengers: "float | Floats"
    """The challenger's episodes."""
    information: "float | Floats"
    """The sum of the weights w = p (1 - p)."""
    score: "float | Floats"
    """The sum of the weighted scores x = w xi, in units of the return."""
    score_squares: "float | Floats"
    """The sum of x**2."""
    score_weights: "float | Floats"
    """The sum of w x."""
    weight_squares: "float | Floats"
    """The sum of w**2."""
    champion_residuals: "float | Floats"
    """The sum of (R - f0)**2 over the champion's episodes."""
    challenger_residuals: "float | Floats"
    """The sum of (R - f1)**2 over the challenger's episodes."""
    ratio: "float | Floats"
    """The largest logarithm so far of the sample-ratio test's e-value."""

    @property
    def difference(self) -> "float | Floats":
        """The estimated difference of the mean returns, challenger - champion; the episodes weigh w."""
        return self.score / self.information

    @property
    def variance(self) -> "float | Floats":
        """The variance of a return, as the scores estimate it: the sum of (x - w difference)**2 over the information.

        The estimated difference has this variance, divided by the information.
        """
        difference = self.difference
        squares = self.score_squares - 2 * difference * self.score_weights + difference**2 * self.weight_squares
        return np.maximum(squares, 0.0) / self.information

    @property
    def arm_variances(self) -> "tuple[float | Floats, float | Floats]":
        """The variance of a return in the champion's and in the challenger's arm, about its predictions."""
        champions, challengers = np.maximum(self.champions, 1), np.maximum(self.challengers, 1)
        return self.champion_residuals / champions, self.challenger_residuals / challengers


def evidence(episodes: Episodes, rules: Rules) -> Evidence:
    """Return the evidence after each of the episodes.

    Raises:
        EpisodeInvalid: A return is not between the bounds that the rules give.
    """
    low, high = rules.return_bounds or (-np.inf, np.inf)
    for index in np.flatnonzero((episodes.returns < low) | (episodes.returns > high))[:1]:
        raise EpisodeInvalid(int(index), outside(float(episodes.returns[index]), low, high))
    arm, share = episodes.challenger.astype(np.float64), episodes.share
    f0, f1 = predictions(episodes, rules.expected_return)
    weight, score = share * (1 - share), weighted_scores(episodes, f0, f1)
    return Evidence(
        champions=np.cumsum(1 - arm),
        challengers=np.cumsum(arm),
        information=np.cumsum(weight),
        score=np.cumsum(score),
        score_squares=np.cumsum(score**2),
        score_weights=np.cumsum(weight * score),
        weight_squares=np.cumsum(weight**2),
        champion_residuals=np.cumsum((1 - arm) * (episodes.returns - f0) ** 2),
        challenger_residuals=np.cumsum(arm * (episodes.returns - f1) ** 2),
        ratio=np.maximum.accumulate(np.maximum(log_e_values(episodes), 0.0)),
    )


def weighted_scores(episodes: Episodes, f0: Floats, f1: Floats) -> Floats:
    """Return p (1 - p) xi of each episode for predictions f0 and f1. All have the shape (n,)."""
    share = episodes.share
    return (episodes.challenger - share) * (episodes.returns - (1 - share) * f1 - share * f0)


def predictions(episodes: Episodes, expected_return: float) -> tuple[Floats, Floats]:
    """Return f0 and f1: the predicted return of each episode in the champion's and in the challenger's arm.

    Both begin at `expected_return`.
    """
    pooled = prediction(expected_return, _before(episodes.returns), np.arange(len(episodes)))
    champion, challenger = (~episodes.challenger).astype(np.float64), episodes.challenger.astype(np.float64)
    f0, f1 = (prediction(pooled, _before(episodes.returns * arm), _before(arm)) for arm in (champion, challenger))
    return f0, f1


def prediction(start: Any, total: Any, count: Any) -> Any:
    """Return the mean of `count` returns with the sum `total`, drawn towards a starting point while they are few."""
    return (PRIOR_EPISODES * start + total) / (PRIOR_EPISODES + count)


def outside(returned: float, low: float, high: float) -> str:
    """Return why an episode is not counted whose return is outside the bounds of the rules."""
    return f"its return is {returned:g}, and the rules say that returns are from {low:g} to {high:g}"


def _before(values: Floats) -> Floats:
    """Return the sum of the values before each one."""
    return np.concatenate(([0.0], np.cumsum(values)[:-1]))[: len(values)]
