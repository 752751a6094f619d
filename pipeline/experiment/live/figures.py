"""The figures of an experiment at one moment, computed anew from what was recorded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.experiment.live.outcomes import Outcome
from pipeline.experiment.live.state import Live
from pipeline.experiment.statistics.decision import Decision, bounds, decide, variance
from pipeline.experiment.statistics.episodes import Assignments, Episodes
from pipeline.experiment.statistics.evidence import Evidence, evidence
from serving.experiments.assignment import CHALLENGER

GUARD_S = 3.0
"""Episodes that begin this close to a change of the share are left out: clocks of replicas may differ by that."""

SERVED, RECENT_SERVED, RECENT = 0.9, 0.5, 50
"""The least part of its episodes that the challenger itself must have begun, of all and of the RECENT last ones."""

GRACE_S = 30.0
"""Episodes that begin so soon after the first share are left out: replicas may still be loading the challenger."""

_LARGEST = 1e100
_ERRORS = 2.0
_NS = 10**9


@dataclass(frozen=True)
class Arm:
    """The figures of one arm."""

    episodes: int = 0
    """Its episodes so far."""
    settled: int = 0
    """Those whose outcome is final."""
    reported: int = 0
    """Those of the settled ones whose client reported in time."""
    return_mean: float = math.nan
    """The mean return of the settled ones."""


@dataclass(frozen=True)
class Figures:
    """What an experiment has shown by a time.

    Attributes:
        at_s: The time, in seconds since 1970.
        share: The challenger's share of the episodes that begin now.
        champion: The champion's arm.
        challenger: The challenger's arm.
        settled_at_share: The challenger's settled episodes that began at this share.
        served: The part of the challenger's episodes that it began itself; NaN while they are few.
        recently_served: The same, of the last ones.
        settled_served: The same, of the settled ones, from which the statistics are.
        champion_served: The part of the champion's settled episodes that the champion began itself; NaN while they are
            few.
        difference: The estimated difference of the mean returns, challenger - champion.
        error: The standard error of the difference.
        lower: Its lower bound, -inf while an arm has too few episodes.
        upper: Its upper bound.
        ratio: The logarithm of the sample-ratio test's e-value.
        clipped: Returns outside the bounds that the rules give, which count as the nearest bound.
        statistics: The decision that follows from the returns alone.
    """

    at_s: float
    share: float
    champion: Arm = Arm()
    challenger: Arm = Arm()
    settled_at_share: int = 0
    served: float = math.nan
    recently_served: float = math.nan
    settled_served: float = math.nan
    champion_served: float = math.nan
    difference: float = math.nan
    error: float = math.nan
    lower: float = -math.inf
    upper: float = math.inf
    ratio: float = 0.0
    clipped: int = 0
    statistics: Decision = Decision.CONTINUE

    @property
    def settled(self) -> int:
        """The settled episodes of both arms."""
        return self.champion.settled + self.challenger.settled

    @property
    def is_mixed(self) -> bool:
        """Whether other versions act in the champion's episodes, so that its returns are not the champion's."""
        return self.champion_served < SERVED

    @property
    def is_unserved(self) -> bool:
        """Whether the servers do not let the challenger act in its episodes."""
        return self.served < SERVED or self.recently_served < RECENT_SERVED

    @property
    def shows_harm(self) -> bool:
        """Whether the challenger's returns are lower by more than two standard errors: too little for a decision."""
        return self.difference + _ERRORS * self.error < 0

    @property
    def decision(self) -> Decision:
        """The decision. No challenger is promoted for returns of episodes in which other versions acted."""
        if self.statistics == Decision.ROLL_BACK:
            return self.statistics
        if self.is_unserved or self.is_mixed:
            return Decision.BLOCKED
        parts = (self.served, self.settled_served, self.champion_served)
        is_shown = all(part >= SERVED for part in parts)  # NaN is not
        return Decision.CONTINUE if self.statistics == Decision.PROMOTE and not is_shown else self.statistics


class _Row(NamedTuple):
    """One episode of an experiment."""

    began_s: float
    name: bytes
    is_challenger: bool
    share: float
    returned: float | None
    is_as_assigned: bool


@dataclass(frozen=True)
class _Assigned:
    """The episodes of an experiment, in the order of their first decisions. Arrays of shape (n,)."""

    started_s: NDArray[np.float64]
    challenger: NDArray[np.bool_]
    share: NDArray[np.float64]
    returns: NDArray[np.float64]
    """NaN where no return was reported in time."""
    as_assigned: NDArray[np.bool_]
    """Whether the version of the arm made the first decision."""


def figures(live: Live, episodes: Mapping[bytes, Outcome], now_s: float) -> Figures:
    """Return the figures of an experiment.

    An episode's arm follows from its hash and the time of its first decision, whichever version answered it (intention
    to treat).

    Args:
        live: The experiment.
        episodes: The outcomes by the hash of the episode.
        now_s: The time in seconds since 1970.
    """
    experiment, settings = replace(live.experiment, decision=None), live.settings
    found = _assigned(live, episodes)
    start_s, served = experiment.shares[-1].start_s, found.as_assigned[found.challenger]
    base, fewest = Figures(now_s, live.experiment.share_at(now_s)), settings.rules.minimum_episodes
    if len(served) >= fewest:
        base = replace(base, served=float(served.mean()), recently_served=float(served[-RECENT:].mean()))
    returns, clipped = _clipped(found.returns, settings.rules.return_bounds)
    in_time = np.where(np.isnan(returns), np.inf, found.started_s)
    told = Assignments(found.started_s, found.challenger, found.share, in_time, returns)
    settled = told.settled(now_s - settings.record_wait_s, settings.reward_wait_s, settings.rules.unreported_return)
    began = found.started_s[: len(settled)]
    as_assigned = found.as_assigned[: len(settled)]
    settled_served, champion_served = as_assigned[settled.challenger], as_assigned[~settled.challenger]
    arms = [_arm(found.challenger == each, settled, settled.challenger == each) for each in (False, True)]
    base = replace(
        base,
        champion=arms[0],
        challenger=arms[1],
        settled_served=float(settled_served.mean()) if len(settled_served) else math.nan,
        champion_served=float(champion_served.mean()) if len(champion_served) >= fewest else math.nan,
        settled_at_share=int((settled.challenger & (began >= start_s)).sum()),
        clipped=clipped,
    )
    return _judged(base, settled, live) if len(settled) else base


def _judged(base: Figures, settled: Episodes, live: Live) -> Figures:
    """Return the figures with what follows from the settled episodes."""
    rules = live.settings.rules
    with np.errstate(invalid="ignore", divide="ignore"):
        sums = evidence(settled, rules)
        last = Evidence(**{each.name: getattr(sums, each.name)[-1] for each in fields(sums)})
        found = bounds(last, rules)
        error = math.sqrt(float(variance(last, rules)) / float(last.information))
        decision = decide(last, rules)
    return replace(
        base,
        difference=float(last.difference),
        error=error,
        lower=float(found.lower),
        upper=float(found.upper),
        ratio=float(last.ratio),
        statistics=decision,
    )


def _arm(all_of_it: NDArray[np.bool_], settled: Episodes, mine: NDArray[np.bool_]) -> Arm:
    count = int(mine.sum())
    mean = float(settled.returns[mine].mean()) if count else math.nan
    return Arm(int(all_of_it.sum()), count, int(settled.reported[mine].sum()), mean)


def _assigned(live: Live, episodes: Mapping[bytes, Outcome]) -> _Assigned:
    """Return the episodes that count: begun within the experiment, and not near a change of the share."""
    experiment, wait_ns = replace(live.experiment, decision=None), int(live.settings.reward_wait_s * _NS)
    starts = np.array([step.start_s for step in experiment.shares])
    rows: list[_Row] = []
    for name, each in episodes.items():
        if each.first_ns is None:
            continue
        began_s = each.first_ns / _NS
        arm = experiment.arm(name, began_s)
        is_early = began_s < starts[0] + GRACE_S
        if arm is None or is_early or np.abs(starts - began_s).min() < GUARD_S or began_s >= live.ended_s:
            continue
        returned = each.returned(each.first_ns + wait_ns)
        version = experiment.challenger if arm == CHALLENGER else experiment.champion
        rows.append(
            _Row(began_s, name, arm == CHALLENGER, experiment.share_at(began_s), returned, each.version == version)
        )
    rows.sort(key=lambda row: (row.began_s, row.name))
    return _Assigned(
        started_s=np.array([row.began_s for row in rows], np.float64),
        challenger=np.array([row.is_challenger for row in rows], np.bool_),
        share=np.array([row.share for row in rows], np.float64),
        returns=np.array([row.returned for row in rows], np.float64),  # None becomes NaN
        as_assigned=np.array([row.is_as_assigned for row in rows], np.bool_),
    )


def _clipped(returns: NDArray[np.float64], limits: tuple[float, float] | None) -> tuple[NDArray[np.float64], int]:
    """Return the returns within the limits, and how many were outside: clients may report anything."""
    low, high = limits or (-_LARGEST, _LARGEST)
    return np.clip(returns, low, high), int(((returns < low) | (returns > high)).sum())
