"""Draws the figures of a training run, 8 by 4.5 inches each."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Sequence[tuple[int, float]]
"""Pairs of environment steps and a mean return."""


def learning_curve(training: Points, evaluation: Points, target_return: float | None, title: str) -> "Figure":
    """Return the mean returns of the last 100 training episodes and of the greedy evaluations over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*np.reshape(training, (-1, 2)).T, color="tab:blue", label="training, mean of the last 100 episodes")
    axes.plot(*np.reshape(evaluation, (-1, 2)).T, color="tab:orange", marker="o", label="greedy evaluation, mean")
    if target_return is not None:
        axes.axhline(target_return, color="gray", linestyle="--", label=f"target {target_return:g}")
    axes.set(title=title, xlabel="environment steps", ylabel="return")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def distribution(returns: Sequence[float], target_return: float | None, title: str) -> "Figure":
    """Return the returns of an evaluation as a histogram, with a mark for each return."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    low, high = min(returns), max(returns)
    # The margin keeps the bar visible when all returns are equal.
    margin = max(0.05 * (high - low), 0.01 * abs(high), 0.5)
    axes.hist(returns, bins=21, range=(low - margin, high + margin), color="tab:blue", alpha=0.6)
    axes.plot(returns, [0.0] * len(returns), "|", color="black", markersize=14, clip_on=False)
    mean = sum(returns) / len(returns)
    axes.axvline(mean, color="tab:orange", label=f"mean {mean:.1f}, minimum {low:.1f}, maximum {high:.1f}")
    if target_return is not None:
        axes.axvline(target_return, color="gray", linestyle="--", label=f"target {target_return:g}")
    axes.set(title=title, xlabel="return", ylabel=f"episodes of {len(returns)}")
    axes.legend()
    return figure
