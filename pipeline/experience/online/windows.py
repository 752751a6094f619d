"""The online return: statistics of finished episodes by version and window of time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.experience.whole_episodes import UNREPORTED


@dataclass(frozen=True)
class Figures:
    """Statistics of episodes whose end clients reported."""

    episodes: int
    return_mean: float
    return_error: float
    """The standard error of the mean; 0 for a single episode."""
    length_mean: float

    @classmethod
    def of(cls, returns: NDArray[np.float64], lengths: NDArray[Any]) -> "Figures":
        """Return the statistics of one or more episodes."""
        count = len(returns)
        error = float(np.std(returns, ddof=1) / np.sqrt(count)) if count > 1 else 0.0
        return cls(count, float(np.mean(returns)), error, float(np.mean(lengths)))


@dataclass(frozen=True)
class Window:
    """The episodes of a version that ended within an interval of time."""

    version: int
    start_s: int
    end_s: int
    """Seconds since 1970; the interval does not contain its end."""
    figures: Figures


@dataclass(frozen=True)
class OnlineReturn:
    """The online return of each version."""

    totals: dict[int, Figures]
    """Over all episodes, by version."""
    windows: list[Window]
    """Ordered by version and time. There is none for an interval in which no episode ended."""
    unreported: int
    """Episodes that do not count, as nobody reported their end."""
    mixed: int
    """Episodes that do not count, as several versions decided in them."""


def online_return(summary: pa.Table, interval_s: int) -> OnlineReturn:
    """Compute the online return from a table of SUMMARY_SCHEMA, in windows of `interval_s` seconds since 1970."""
    reported = pc.not_equal(summary["done"], UNREPORTED)
    ended = summary.filter(reported)
    pure = ended.filter(pc.equal(ended["versions"], 1))
    version = pure["version"].to_numpy()
    start = pure["end"].cast(pa.int64()).to_numpy() // 10**9 // interval_s * interval_s
    returns, lengths = pure["return"].to_numpy(), pure["length"].to_numpy()
    totals = {int(key): Figures.of(returns[rows], lengths[rows]) for (key,), rows in _groups(version)}
    windows = [
        Window(int(number), int(begin), int(begin) + interval_s, Figures.of(returns[rows], lengths[rows]))
        for (number, begin), rows in _groups(version, start)
    ]
    return OnlineReturn(totals, windows, len(summary) - len(ended), len(ended) - len(pure))


def _groups(*keys: NDArray[Any]) -> Iterator[tuple[tuple[int, ...], NDArray[np.int64]]]:
    """Yield each combination of keys, ascending, with its rows."""
    if not len(keys[0]):
        return
    order = np.lexsort(keys[::-1])
    ordered = [key[order] for key in keys]
    changes = np.logical_or.reduce([np.diff(key) != 0 for key in ordered])
    for rows in np.split(order, np.flatnonzero(changes) + 1):
        yield tuple(int(key[rows[0]]) for key in keys), rows
