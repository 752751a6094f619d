"""Watches a running experiment: looks at its figures every few seconds, raises the share, and decides.

A controller keeps nothing that it could lose: it computes everything from the tag and from what was recorded.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline import signals
from pipeline.experience.raw import open_experience
from pipeline.experiment.errors import ExperimentUnknown
from pipeline.experiment.live import run_log, state
from pipeline.experiment.live.ending import complete, end, summary, supersede
from pipeline.experiment.live.figures import SERVED, Figures, figures
from pipeline.experiment.live.lease import SETTLE_S, Lease, is_conflict
from pipeline.experiment.live.outcomes import Outcomes
from pipeline.experiment.live.settings import (
    AUTO,
    BLOCKED,
    INCONCLUSIVE,
    PROMOTED,
    REPORTED,
    ROLLED_BACK,
)
from pipeline.experiment.live.state import Live
from pipeline.experiment.statistics.decision import Decision
from pipeline.registry.signing import Signer
from pipeline.registry.target import Target
from pipeline.tracking.outages import is_failure
from serving.errors import ExpectedError
from serving.experience.errors import StoreUnavailable
from serving.registry.errors import DatabaseUnreachable, TrackingServerUnreachable
from serving.registry.mlflow_api import as_expected

EVERY_S = 10.0
"""How often a controller looks, by default."""

LOOKBACK_S = 300.0
"""How long before an experiment a decision shows that its episode began earlier, at least."""

_GROWTH = 1.02
"""Figures are logged when the settled episodes have grown by this factor: some hundred points in all."""
_LONGEST_LOOK_S = 30.0
"""How long a signal waits for the end of a look."""

_DECISIONS = {
    Decision.PROMOTE: PROMOTED,
    Decision.ROLL_BACK: ROLLED_BACK,
    Decision.BLOCKED: BLOCKED,
    Decision.INCONCLUSIVE: INCONCLUSIVE,
}


class Observer:
    """Computes the figures of an experiment; it reads what was recorded since its last call."""

    def __init__(self) -> None:
        self._id = ""
        self._outcomes: Outcomes | None = None

    def figures(self, live: Live, now_s: float) -> Figures:
        """Return the figures at a time. Raises StoreUnavailable, NoExperience."""
        if self._outcomes is None or self._id != live.experiment.id:
            store = open_experience(live.settings.experience)
            since_s = live.experiment.shares[0].start_s - max(LOOKBACK_S, live.settings.reward_wait_s)
            self._id, self._outcomes = live.experiment.id, Outcomes(store, live.target.model, since_s)
        self._outcomes.update()
        return figures(live, self._outcomes.episodes, now_s)

    @property
    def damaged(self) -> list[str]:
        """Files that could not be read at the last look."""
        return self._outcomes.damaged if self._outcomes else []


@dataclass
class Controller:
    """Runs the experiment of a target to its end.

    Attributes:
        target: The stage or alias.
        signer: Signs the challenger when it is promoted, if it is given.
        notify: Receives each line about what happens.
        every_s: The time between two looks.
        clock: Returns the time in seconds since 1970.
        settle_s: See `lease.SETTLE_S`.
    """

    target: Target
    signer: Signer | None
    notify: Callable[[str], None]
    every_s: float = EVERY_S
    clock: Callable[[], float] = time.time
    settle_s: float = SETTLE_S
    observer: Observer = field(default_factory=Observer)
    _lease: Lease | None = None
    _logged: tuple[int, float, Decision] = (0, -1.0, Decision.CONTINUE)
    _told: dict[str, str] = field(default_factory=dict)
    """The last line of each kind, so that it is shown once."""

    def run(self) -> Live:
        """Look until the experiment has ended, and return it: the open one, or the last one if none is open.

        Raises:
            ExperimentUnknown: There was no experiment on the target, or somebody removed its tag.
            Interrupted: After a signal; the experiment goes on.
        """
        try:
            while True:
                live = self._look_through_outages()
                if live is not None and not live.is_open:
                    return live
                self._pause()
        finally:
            if self._lease is not None:
                self._lease.release()

    def look(self) -> Live:
        """Look once, act if this controller has the lease, and return the experiment as it is then."""
        live = self._find()
        if self._lease is None:
            self._lease = Lease(live, self.settle_s)
        if not live.is_open:
            return live
        other = self._lease.acquire()
        self._tell("lease", other and f"Another controller acts on the experiment ({other}); this one waits.")
        if other is not None:
            return live
        live = self._find()  # whoever had the lease before may have changed it
        if live.is_running:
            return self._act(live)
        return complete(live, self.signer) if live.is_open else live

    def _find(self) -> Live:
        """Return the experiment of this controller; end the run of one whose tag is gone.

        Raises:
            ExperimentUnknown: There is none.
        """
        mine = self._lease.live if self._lease else None
        found = state.find(self.target, mine.experiment.id if mine else None)
        if found is None:
            if mine is not None:
                run_log.abandon(mine.settings.run_id)
            raise ExperimentUnknown(str(self.target), self.target.model)
        return found

    def _act(self, live: Live) -> Live:
        now_s = self.clock()
        if self.target.current_version() != live.experiment.champion:
            return supersede(live, self.settle_s)
        found = self.observer.figures(live, now_s)
        is_logged = self._log(live, found)
        self._tell("damaged", self.observer.damaged and f"Left out, damaged: {', '.join(self.observer.damaged[:3])}")
        verdict = _DECISIONS.get(found.decision)
        if live.settings.decide != AUTO and verdict not in {None, INCONCLUSIVE}:
            self._report(live, f"{verdict}: {reason(live, found)}")
        elif verdict is not None:
            return self._end(live, verdict, reason(live, found))
        if now_s > live.deadline_s:
            decision = INCONCLUSIVE if live.settings.decide == AUTO else REPORTED
            return self._end(live, decision, f"its time was over; {self._told.get('verdict') or summary(found)}")
        if may_rise(live, found):
            live = self._raise(live, found)
        if is_logged:  # last, because an artifact store may take its time
            run_log.draw_chart(live)
        return live

    def _end(self, live: Live, decision: str, why: str) -> Live:
        return end(live, decision, why, self.signer, self.settle_s)

    def _raise(self, live: Live, found: Figures) -> Live:
        start_s = self.clock() + live.settings.delay_s
        seen = live.experiment.shares
        raised = state.update(live, lambda now: now.raised(start_s) if now.experiment.shares == seen else now)
        if raised.experiment.shares != seen:
            at = datetime.fromtimestamp(start_s, UTC).strftime("%H:%M:%S")
            self.notify(f"Share {raised.experiment.shares[-1].share:.3g} from {at} UTC: {summary(found)}.")
        return raised

    def _report(self, live: Live, verdict: str) -> None:
        if self._told.get("verdict") != verdict:
            self._tell("verdict", verdict)
            run_log.tag_verdict(live, verdict)

    def _log(self, live: Live, found: Figures) -> bool:
        """Log the figures if they have changed enough, and return whether they had."""
        settled, *before = self._logged
        if found.settled > settled * _GROWTH or before != [found.share, found.decision]:
            run_log.log(live, found)
            self._logged = found.settled, found.share, found.decision
            return True
        return False

    def _look_through_outages(self) -> Live | None:
        """Look once; return None if the registry or the store of experience does not answer."""
        try:
            with signals.deferred(_LONGEST_LOOK_S):
                live = self.look()
        except Exception as error:
            if not is_outage(error):
                raise
            self._tell("outage", f"{_first_sentence(error)} The experiment goes on; the controller tries again.")
            return None
        if self._told.pop("outage", None):
            self.notify("The registry and the experience can be reached again.")
        return live

    def _tell(self, kind: str, line: str | list[str] | None) -> None:
        """Show a line of a kind, unless it is the one that was shown last."""
        text = str(line) if line else ""
        if text and self._told.get(kind) != text:
            self.notify(text)
        self._told[kind] = text

    def _pause(self) -> None:
        until = time.monotonic() + self.every_s
        while (left := until - time.monotonic()) > 0:
            signals.check()
            time.sleep(min(left, 0.5))


def may_rise(live: Live, found: Figures) -> bool:
    """Return whether the next share may begin.

    The challenger has enough settled episodes at this share, it acted in them, and its returns show no harm. The share
    never falls.
    """
    return (
        live.next_share is not None
        and found.at_s < live.experiment.expires_s
        and found.settled_at_share >= live.settings.step_episodes
        and found.decision == Decision.CONTINUE
        and not found.shows_harm
        and not found.settled_served < SERVED
    )


def reason(live: Live, found: Figures) -> str:
    """Return why the figures lead to their decision."""
    if found.decision != Decision.BLOCKED:
        over = f"the budget of {live.settings.rules.budget:,} episodes is used up; "
        return (over if found.decision == Decision.INCONCLUSIVE else "") + summary(found)
    if found.is_unserved:
        return (
            f"the challenger answered only {found.served:.0%} of its episodes, and {found.recently_served:.0%} of the "
            f"last ones: the servers refuse it, or have not loaded it (see /model); {summary(found)}"
        )
    if found.is_mixed:
        return (
            f"version {live.experiment.champion} began only {found.champion_served:.0%} of the champion's episodes: a "
            f"server of another version records to {live.settings.experience}, too; {summary(found)}"
        )
    champion, challenger = found.champion, found.challenger
    return (
        f"the arms do not report alike: {_part(challenger.reported, challenger.settled)} of the challenger's episodes "
        f"and {_part(champion.reported, champion.settled)} of the champion's; {summary(found)}"
    )


def is_outage(error: Exception) -> bool:
    """Return whether a later try may succeed: a server did not answer, or another process wrote at the same moment."""
    unreachable = (TrackingServerUnreachable, DatabaseUnreachable, StoreUnavailable)
    return isinstance(error, unreachable) or is_failure(error) or is_conflict(error)


def _first_sentence(error: Exception) -> str:
    expected = error if isinstance(error, ExpectedError) else as_expected(error)
    text = str(expected or "MLflow does not answer.")
    return text.split(". ", maxsplit=1)[0].rstrip(".") + "."


def _part(count: int, total: int) -> str:
    return f"{count / max(total, 1):.1%}"
