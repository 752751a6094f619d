"""Draws the online return of each version over time."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.experience.online.windows import Window

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_VERSIONS = 10
"""The newest versions that are drawn: there are ten colors."""

_CONFIDENCE = 1.96
"""Standard errors on each side of the mean of a 95% interval."""


def draw(windows: Sequence[Window], model: str, interval_s: int) -> "Figure":
    """Return the mean return of each version and window with its 95% interval, and the number of episodes below."""
    import matplotlib.dates
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    newest = sorted({window.version for window in windows})[-MAX_VERSIONS:]
    for version, group in groupby(windows, key=lambda window: window.version):
        if version not in newest:
            continue
        mine = list(group)
        times = [datetime.fromtimestamp((each.start_s + each.end_s) / 2, UTC) for each in mine]
        mean = np.array([each.figures.return_mean for each in mine])
        margin = _CONFIDENCE * np.array([each.figures.return_error for each in mine])
        color = f"C{version % MAX_VERSIONS}"
        upper.plot(times, mean, marker="o", markersize=4, color=color, label=f"version {version}")
        upper.fill_between(times, mean - margin, mean + margin, color=color, alpha=0.2)
        lower.plot(times, [each.figures.episodes for each in mine], marker="o", markersize=3, color=color)
    upper.set(title=f"Online return of {model}", ylabel="mean return, 95% interval")
    lower.set(xlabel="time (UTC)", ylabel=f"episodes\nin {_duration(interval_s)}")
    lower.set_ylim(bottom=0)
    formatter: Any = matplotlib.dates.ConciseDateFormatter
    lower.xaxis.set_major_formatter(formatter(lower.xaxis.get_major_locator()))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    if newest:
        upper.legend()
    return figure


def _duration(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
