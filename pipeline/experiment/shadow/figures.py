"""The figures of a shadow: sums and histograms, whose size does not depend on the number of decisions."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 1000


@dataclass
class Spread:
    """The mean and the quantiles of numbers from 0 to 1; larger ones count as 1 in the quantiles."""

    count: int = 0
    total: float = 0.0
    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS + 1, np.int64))

    def add(self, values: NDArray[np.float64]) -> None:
        """Add the numbers that are finite."""
        finite = values[np.isfinite(values)]
        self.count += len(finite)
        self.total += float(finite.sum())
        places = np.minimum(np.ceil(np.maximum(finite, 0) * _BINS), _BINS).astype(np.int64)
        self.bins += np.bincount(places, minlength=_BINS + 1)

    @property
    def mean(self) -> float | None:
        """The mean, None without numbers."""
        return self.total / self.count if self.count else None

    def quantile(self, level: float) -> float | None:
        """Return a quantile, rounded up to a thousandth; None without numbers."""
        if not self.count:
            return None
        return int(np.searchsorted(np.cumsum(self.bins), level * self.count)) / _BINS


@dataclass
class Figures:
    """What was found in the decisions of one version, or of all.

    Attributes:
        decisions: Decisions that the challenger computed.
        compared: Those of them whose greedy action is known.
        agreeing: Those whose action agrees.
        failed: Decisions that the challenger's graph could not compute.
        non_finite: Decisions with NaN or an infinity in the challenger's outputs.
        distance: Distances of the actions that are numbers.
        variation: Total variations of the distributions.
    """

    decisions: int = 0
    compared: int = 0
    agreeing: int = 0
    failed: int = 0
    non_finite: int = 0
    distance: Spread = field(default_factory=Spread)
    variation: Spread = field(default_factory=Spread)

    @property
    def agreement(self) -> float | None:
        """The share of the greedy actions that agree, None if none is known."""
        return self.agreeing / self.compared if self.compared else None

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {
            "decisions": self.decisions,
            "compared": self.compared,
            "agreement": self.agreement,
            "action_distance_mean": self.distance.mean,
            "action_distance_p99": self.distance.quantile(0.99),
            "total_variation_mean": self.variation.mean,
            "total_variation_p99": self.variation.quantile(0.99),
            "non_finite": self.non_finite,
            "failed": self.failed,
        }


def merged(figures: list[Figures]) -> Figures:
    """Return the figures of all versions together."""
    total = Figures()
    for each in figures:
        for name in ("decisions", "compared", "agreeing", "failed", "non_finite"):
            setattr(total, name, getattr(total, name) + getattr(each, name))
        for one, other in ((total.distance, each.distance), (total.variation, each.variation)):
            one.count += other.count
            one.total += other.total
            one.bins += other.bins
    return total
