"""Draws the online return of each version."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from examples.closed_loop.players import Played

_CONFIDENCE = 1.96


def draw(played: Sequence[Played], file: Path) -> None:
    """Write the returns of all episodes by time, and the mean of each version with its 95% interval, as an image."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    begun_at = min(each.ended_at for each in played)
    for version in sorted({each.version for each in played}):
        mine = [each for each in played if each.version == version]
        minutes = [(each.ended_at - begun_at) / 60 for each in mine]
        returns = np.array([each.total for each in mine])
        mean, error = returns.mean(), returns.std() / len(returns) ** 0.5
        color = f"C{version - 1}"
        label = f"version {version}: mean {mean:.0f} +- {_CONFIDENCE * error:.0f} of {len(mine)} episodes"
        axes.plot(minutes, returns, ".", color=color, alpha=0.4)
        axes.hlines(mean, min(minutes), max(minutes), color=color, linewidth=2, label=label)
        limits = mean - _CONFIDENCE * error, mean + _CONFIDENCE * error
        axes.fill_between([min(minutes), max(minutes)], *limits, color=color, alpha=0.2)
    axes.set(title="Online return by version", xlabel="minutes since the first episode", ylabel="return")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file)
