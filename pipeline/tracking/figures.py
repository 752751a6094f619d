"""Draws the figures of a training run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class LearningCurve:
    """Returns over environment steps during training.

    Attributes:
        target_return: The return to reach, or None.
        training: (environment steps, mean return of the last 100 training episodes).
        evaluation: (environment steps, mean return of the greedy evaluation).
    """

    target_return: float | None
    training: list[tuple[int, float]] = field(default_factory=list)
    evaluation: list[tuple[int, float]] = field(default_factory=list)

    def figure(self, title: str) -> "Figure":
        """Return the curves as a figure of 8 by 4.5 inches."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.plot(*_columns(self.training), color="tab:blue", label="training, mean of the last 100 episodes")
        axes.plot(*_columns(self.evaluation), color="tab:orange", marker="o", label="greedy evaluation, mean")
        if self.target_return is not None:
            axes.axhline(self.target_return, color="gray", linestyle="--", label=f"target {self.target_return:g}")
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


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
