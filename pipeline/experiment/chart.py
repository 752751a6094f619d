"""Draws an experiment over time: the returns of the arms, their difference with its bounds, and the share."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = (
    "return/champion",
    "return/challenger",
    "difference/estimate",
    "difference/lower_bound",
    "difference/upper_bound",
    "share",
    "settled/challenger",
)
"""The metrics that are drawn."""

_UNITS = ((2 * 86_400, 86_400, "days"), (2 * 3600, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))

Points = Sequence[tuple[float, float]]
"""The values of a metric: (seconds since the start, value)."""


def draw(title: str, margin: float, metrics: Mapping[str, Points]) -> "Figure":
    """Return the chart.

    Args:
        title: The title.
        margin: The margin of the rules, in units of the return.
        metrics: The points of METRICS by name, ascending by time; those that are missing are not drawn.
    """
    from matplotlib.figure import Figure

    last_s = max((point[0] for points in metrics.values() for point in points), default=0.0)
    _, length, unit = next(each for each in _UNITS if last_s >= each[0])
    figure = Figure(figsize=(8, 7.5), layout="constrained")
    returns, difference, share = figure.subplots(3, sharex=True, height_ratios=[2, 3, 1.2])
    scaled = {name: [(time / length, value) for time, value in points] for name, points in metrics.items()}
    for color, arm in (("C0", "champion"), ("C1", "challenger")):
        _line(returns, scaled.get(f"return/{arm}", ()), color=color, label=arm)
    returns.set(title=title, ylabel="mean return")
    _line(difference, scaled.get("difference/estimate", ()), color="C2", label="challenger - champion")
    _line(difference, scaled.get("difference/lower_bound", ()), color="C2", linestyle="--", label="bounds")
    _line(difference, scaled.get("difference/upper_bound", ()), color="C2", linestyle="--")
    difference.axhline(0, color="C3", linewidth=1, label="rolled back if the upper bound is below")
    difference.axhline(-margin, color="C4", linewidth=1, label="promoted if the lower bound is above")
    difference.set(ylabel="difference")
    _line(share, scaled.get("share", ()), color="C1", drawstyle="steps-post")
    share.set(ylabel="share", xlabel=f"{unit} since the start", ylim=(0, None))
    for axes in (returns, difference, share):
        axes.grid(alpha=0.3)
    for axes in (returns, difference):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    return figure


def _line(axes: "Axes", points: Points, **style: object) -> None:
    if points:
        times, values = zip(*points, strict=True)
        axes.plot(times, values, marker="o", markersize=2, **style)  # type: ignore[arg-type]
