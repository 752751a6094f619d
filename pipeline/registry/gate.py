"""Whether a challenger may take the champion's place."""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.evaluation import Evaluation

#: Confidence of the bound on the difference.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Verdict:
    """A challenger's greedy returns beside the champion's, on the same seeds.

    The challenger passes if its mean return reaches the threshold, and if it is not worse than the champion: the lower
    end of the one-sided 95% confidence interval of the mean paired difference (Student's t over the seeds) must not lie
    below minus the tolerance, a fraction of the champion's mean return.

    Attributes:
        challenger: Its evaluation.
        champion: Its evaluation on the same seeds; None if nothing stood there.
        threshold: The mean return to reach; None if there is none.
        tolerance: The fraction of the champion's mean return that may be lost.
    """

    challenger: Evaluation
    champion: Evaluation | None
    threshold: float | None
    tolerance: float

    @property
    def difference_bound(self) -> float | None:
        """The lower bound of the mean of challenger - champion; None without a champion."""
        if self.champion is None:
            return None
        differences = np.subtract(self.challenger.returns, self.champion.returns)
        return _lower_bound(differences)

    @property
    def allowed_loss(self) -> float:
        """How far below 0 the bound may lie."""
        return 0.0 if self.champion is None else self.tolerance * abs(self.champion.mean)

    @property
    def objections(self) -> list[str]:
        """Why the challenger may not be promoted; empty if it may."""
        found = []
        if self.threshold is not None and self.challenger.mean < self.threshold:
            found.append(f"its mean return {self.challenger.mean:.1f} is below the threshold {self.threshold:g}")
        bound = self.difference_bound
        if bound is not None and not bound >= -self.allowed_loss:
            found.append(
                f"it may be worse than the champion: the lower 95% bound of the mean difference is {bound:.1f}, "
                f"below -{self.allowed_loss:.1f} ({self.tolerance:.0%} of the champion's mean)"
            )
        return found

    @property
    def figures(self) -> str:
        """The comparison in a few words, for the history."""
        if self.champion is None:
            return f"return {self.challenger.mean:.1f}, no champion"
        return f"return {self.challenger.mean:.1f} against {self.champion.mean:.1f}, bound {self.difference_bound:+.1f}"


def _lower_bound(differences: np.ndarray) -> float:
    from scipy.stats import t

    count = len(differences)
    if count == 1:
        return -math.inf
    error = float(np.std(differences, ddof=1)) / math.sqrt(count)
    return float(np.mean(differences)) - float(t.ppf(CONFIDENCE, count - 1)) * error
