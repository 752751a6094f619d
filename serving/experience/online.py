"""Counts the finished episodes that clients report, per version: what `/model` and the metrics show of them."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serving.policy.spaces import Json
from serving.telemetry.numbers import Number

RECENT_EPISODES = 10_000
"""The number of episodes that are remembered, so that a report that is sent again counts once."""
MAX_VERSIONS = 100
"""The number of versions that are counted: clients name them, and each is a label of the metrics."""


@dataclass
class OnlineTotals:
    """The sums over the finished episodes of one version."""

    episodes: int = 0
    return_sum: float = 0.0
    length_sum: int = 0
    length_count: int = 0
    """The episodes whose length was reported."""

    def describe(self) -> dict[str, Json]:
        """Return the means, as a version's part of the member `online` of `/model`."""
        return {
            "episodes": self.episodes,
            "return_mean": self.return_sum / self.episodes,
            "length_mean": self.length_sum / self.length_count if self.length_count else None,
            "length_count": self.length_count,
        }


class OnlineReturns:
    """The finished episodes that were reported to one replica since it started, per version.

    A replica counts the events that it receives, so the sum over the replicas covers the application. The first report
    of an episode's end counts. A report that is sent again to another replica counts again:
    `python -m pipeline experience report` computes exact figures from the recorded experience.

    Args:
        served_version: returns the version that is served now. It stands for the version of an event that names none.
    """

    def __init__(self, served_version: Callable[[], int]) -> None:
        self._served_version = served_version
        self._totals: OrderedDict[int, OnlineTotals] = OrderedDict()
        self._recent: OrderedDict[str, None] = OrderedDict()

    def add(self, event: Mapping[str, Any]) -> None:
        """Count an event, the content of a FEEDBACK record, if it ends an episode and has its return."""
        value = event.get("return")
        if event.get("done") is None or value is None or not math.isfinite(value) or self._is_known(event["episode"]):
            return
        version = event.get("version")
        totals = self._of(self._served_version() if version is None else version)
        totals.episodes += 1
        totals.return_sum += value
        if (length := event.get("length")) is not None:
            totals.length_sum += length
            totals.length_count += 1

    def numbers(self) -> Iterator[Number]:
        """Yield the metrics of each version."""
        for version, totals in self._totals.items():
            labels = {"version": str(version)}
            yield Number("policy_online_episodes", totals.episodes, labels=labels)
            yield Number("policy_online_return", totals.return_sum, "_sum", labels)
            yield Number("policy_online_length", totals.length_sum, "_sum", labels)
            yield Number("policy_online_length", totals.length_count, "_count", labels)

    def describe(self) -> dict[str, Json]:
        """Return the member `online` of `/model`: the number of episodes and the means by version."""
        return {str(version): totals.describe() for version, totals in sorted(self._totals.items())}

    def _is_known(self, episode: str) -> bool:
        known = episode in self._recent
        self._recent[episode] = None
        self._recent.move_to_end(episode)
        if len(self._recent) > RECENT_EPISODES:
            self._recent.popitem(last=False)
        return known

    def _of(self, version: int) -> OnlineTotals:
        """Return the totals of a version. The version that was reported longest ago makes room for a new one."""
        totals = self._totals.setdefault(version, OnlineTotals())
        self._totals.move_to_end(version)
        if len(self._totals) > MAX_VERSIONS:
            self._totals.popitem(last=False)
        return totals
