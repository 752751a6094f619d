"""Draws the drift of a version."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.drift.comparison import FIRST_STEP, DimensionDrift
from pipeline.drift.measure import Drift
from pipeline.reference.reference import quantiles_of
from pipeline.reference.sketches import Sketches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BARS, _CURVES = 16, 3
_POINTS = 200


def draw(drift: Drift) -> "Figure":
    """Return the largest ratios to the thresholds, and the distributions of the dimensions that have them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    bars, *curves = figure.subplot_mosaic(
        [["bars", str(index)] for index in range(_CURVES)], width_ratios=[1.2, 1]
    ).values()
    largest = drift.comparison.dimensions[:_BARS][::-1]
    colors = ["tab:red" if each.ratio > 1 else "tab:gray" for each in largest]
    bars.barh([_title(each) for each in largest], [each.ratio for each in largest], color=colors)
    bars.axvline(1, color="black", linestyle="--")
    state = "alarm" if drift.comparison.alarms else "no alarm"
    bars.set(
        title=f"{drift.model}, version {drift.version}: {state}",
        xlabel=f"statistic / threshold (alpha {drift.comparison.alpha:g})",
    )
    for axes, each in zip(curves, drift.comparison.dimensions, strict=False):
        _draw_distributions(axes, drift, each)
    if curves:
        curves[0].legend()
    return figure


def _draw_distributions(axes: Any, drift: Drift, each: DimensionDrift) -> None:
    """Draw a dimension in the reference and in the live episodes: shares of categories, or cumulative shares."""
    names = [dimension.name for dimension in drift.reference.dimensions]
    index = names.index(each.dimension)
    dimension = drift.reference.dimensions[index]
    groups = (("reference", drift.reference.sketches, "tab:gray"), ("live", drift.live.sketches, "tab:blue"))
    for label, sketches, color in groups:
        values = _values(sketches, index, each.steps, categories=dimension.categories > 0)
        if dimension.categories:
            places = dimension.start + np.arange(dimension.categories)
            if each.steps == FIRST_STEP:
                values = np.array([(values == place).mean() for place in places])
            axes.plot(places, values, marker=".", linestyle="", color=color, label=label)
        else:
            axes.plot(np.sort(values), np.linspace(0, 1, len(values)), color=color, label=label)
    axes.set_title(_title(each), fontsize="medium")


def _values(sketches: Sketches, index: int, steps: str, *, categories: bool) -> NDArray[Any]:
    if steps == FIRST_STEP:
        return sketches.first[:, index]
    values = sketches.values[index]
    if categories:
        return np.average(values, axis=0, weights=sketches.lengths)
    return quantiles_of(values, sketches.lengths, _POINTS)


def _title(each: DimensionDrift) -> str:
    return f"{each.dimension}, {each.steps}"
