"""Decides whether a version (the challenger) may replace the current version of a target (the champion)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.evaluation import Evaluation
from serving.registry.model_version import ModelVersion

_CONFIDENCE = 0.95

SecondGate = Callable[[ModelVersion, int | None], tuple[list[str], str]]
"""Returns the objections to a challenger, beside a champion or none, and a summary of them for the history."""


@dataclass(frozen=True)
class Gate:
    """The settings of the gate.

    Attributes:
        episodes: Greedy episodes that the challenger and the champion play each.
        seed: Episode i is reset with `seed + i`, for both.
        threshold: The mean return to reach. By default it is the target return of the version's training (its tag
            `target_return`), else the environment's reward threshold, else none.
        tolerance: The fraction of the champion's mean return that may be lost.
        force: Promote in spite of objections, and record them.
        second: Another gate, beside the episodes that are played.
    """

    episodes: int = 100
    seed: int = 0
    threshold: float | None = None
    tolerance: float = 0.02
    force: bool = False
    second: SecondGate | None = None


@dataclass(frozen=True)
class Verdict:
    """The comparison of a challenger's greedy returns with the champion's on the same seeds.

    The challenger passes if its mean return reaches the threshold and it is not worse than the champion: the lower end
    of the one-sided 95% confidence interval of the mean paired difference (Student's t over the seeds) must not be
    below minus the tolerance, a fraction of the champion's mean return. If there is no champion, only the threshold
    decides; if there is no threshold, only the champion does.
    """

    challenger: Evaluation
    champion: Evaluation | None
    threshold: float | None
    tolerance: float

    @property
    def difference_bound(self) -> float | None:
        """The lower confidence bound of the mean of challenger - champion; None without a champion."""
        if self.champion is None:
            return None
        return _lower_bound(np.subtract(self.challenger.returns, self.champion.returns))

    @property
    def allowed_loss(self) -> float:
        """How far the bound may be below 0."""
        return 0.0 if self.champion is None else self.tolerance * abs(self.champion.mean)

    @property
    def objections(self) -> list[str]:
        """The reasons not to promote the challenger; empty if it passes."""
        if not math.isfinite(self.challenger.mean):
            return [f"its mean return is {self.challenger.mean}, expected a finite number"]
        found = []
        if self.threshold is not None and not self.challenger.mean >= self.threshold:
            found.append(f"its mean return {self.challenger.mean:.1f} is below the threshold {self.threshold:g}")
        if self.champion is not None and not math.isfinite(self.champion.mean):
            return [*found, f"it cannot be compared: the champion's mean return is {self.champion.mean}"]
        bound = self.difference_bound
        if bound is not None and not bound >= -self.allowed_loss:
            found.append(
                f"it may be worse than the champion: the lower 95% bound of the mean difference is {bound:.1f}, "
                f"below -{self.allowed_loss:.1f} ({self.tolerance:.0%} of the champion's mean)"
            )
        return found

    @property
    def figures(self) -> str:
        """A summary of the comparison for the history."""
        if self.champion is None:
            return f"return {self.challenger.mean:.1f}, no champion"
        return f"return {self.challenger.mean:.1f} against {self.champion.mean:.1f}, bound {self.difference_bound:+.1f}"


def _lower_bound(differences: np.ndarray) -> float:
    # scipy's ttest_1samp(...).confidence_interval() warns where all differences are equal, as on CartPole.
    from scipy.stats import sem, t

    count = len(differences)
    return -math.inf if count == 1 else float(differences.mean() - t.ppf(_CONFIDENCE, count - 1) * sem(differences))
