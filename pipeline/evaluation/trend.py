"""Tells what the returns of a training did: whether they rose until its end, fell, stayed, or never differed.

The greedy means of the evaluations are examined, and the running means of the training returns at the same steps: a
policy may improve before its greedy actions do. Both tests ask for the order of the values only, so neither their scale
nor an outlier matters. Of curves that are noise, they call one in twenty rising, and one in ten falling.
"""

import math
import statistics
from collections.abc import Sequence
from enum import Enum

Curve = Sequence[tuple[int, float]]
"""Pairs of environment steps and a mean return."""

#: The level of both tests.
_SIGNIFICANCE = 0.05

#: A curve that lost this share of what it had gained has fallen.
_LOST = 1 / 3

#: The least number of values that are examined for a rise, and of those that are compared for a fall.
_RISE, _FALL = 6, 3


class Trend(Enum):
    """What the returns of a training did by its end."""

    RISING = "rising"
    FLAT = "flat"
    FALLING = "falling"
    CONSTANT = "constant"


def of_curves(evaluation: Curve, training: Curve, *, is_gaussian: bool = False) -> Trend:
    """Return the trend of a training.

    Continuous actions are greedy ones with noise, which costs less and less as it shrinks. Therefore training returns
    that rise towards greedy ones, and do not exceed them, are no sign of a better policy.

    Args:
        evaluation: The mean greedy returns.
        training: The running means of the training returns after each iteration, NaN before the first episode ended.
        is_gaussian: Whether actions are drawn from normal distributions.
    """
    greedy = [mean for _, mean in evaluation if math.isfinite(mean)]
    sampled = _at(training, [step for step, _ in evaluation])
    if len({*greedy, *sampled}) <= 1:
        return Trend.CONSTANT
    if _has_fallen(greedy):
        return Trend.FALLING
    if is_gaussian and sampled and max(sampled[-_RISE:]) <= max(greedy, default=math.inf):
        sampled = []
    return Trend.RISING if _is_rising(greedy) or _is_rising(sampled) else Trend.FLAT


def _at(curve: Curve, steps: Sequence[int]) -> list[float]:
    """Return the last finite value of a curve at each of some ascending steps; none before its first value."""
    found, values = [], [(step, mean) for step, mean in curve if math.isfinite(mean)]
    for at in steps:
        found += [mean for step, mean in values if step <= at][-1:]
    return found


def _is_rising(values: Sequence[float]) -> bool:
    """Return whether the last half of the values rises, by the test of Mann and Kendall."""
    last = values[-max(_RISE, len(values) // 2) :]
    if len(set(last)) <= 1:
        return False
    from scipy.stats import kendalltau

    return bool(kendalltau(range(len(last)), last, alternative="greater").pvalue <= _SIGNIFICANCE)


def _has_fallen(values: Sequence[float]) -> bool:
    """Return whether the last quarter of the values lies far below the best one, by the test of Mann and Whitney."""
    size = max(_FALL, len(values) // 4)
    if len(values) < 2 * size:
        return False
    from scipy.stats import mannwhitneyu

    last = values[-size:]
    earlier = [values[start : start + size] for start in range(len(values) - 2 * size + 1)]
    best = max(earlier, key=statistics.median)
    until_best = values[: earlier.index(best) + size]
    gained = statistics.median(best) - min(until_best)
    lost = statistics.median(best) - statistics.median(last)
    return bool(lost > _LOST * gained and mannwhitneyu(best, last, alternative="greater").pvalue <= _SIGNIFICANCE)
