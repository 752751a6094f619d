"""Ends an experiment: writes the decision, does what follows from it, and can do so again after a kill at any point.

    1. the decision, in the tag: replicas stop assigning episodes
    2. the promotion, whose event in the history has the time of the decision as its key; or the event alone
    3. the run, and the links to it
    4. `finished`, in the tag

A controller that finds a decision without `finished` begins at 2 again. From 2 on, each write has the same key and the
same content whoever makes it, so two controllers leave one decision and one event.
"""

import math
import time
from typing import Any

from pipeline.experiment.errors import ExperimentUnknown
from pipeline.experiment.live import run_log, state
from pipeline.experiment.live.figures import Figures
from pipeline.experiment.live.lease import SETTLE_S
from pipeline.experiment.live.settings import JUDGED, PROMOTED, SUPERSEDED
from pipeline.experiment.live.state import Live
from pipeline.registry import history
from pipeline.registry.promotion import assign
from pipeline.registry.signing import Signer, has_passed, record_gate, sign
from serving.integrity.statements import Subject
from serving.registry.errors import VersionMissing
from serving.registry.registry import resolve


def end(live: Live, decision: str, why: str, signer: Signer | None = None, settle_s: float = SETTLE_S) -> Live:
    """Decide a running experiment, and do what follows from it; return it as it is then.

    If another process decides it at the same moment, one of both decisions counts: the one that is in the tag when
    both must have written theirs. The other process then finds an experiment that is decided.
    """
    state.update(live, lambda now: now.decided(decision, history.now(), why) if now.is_running else now)
    time.sleep(settle_s)
    now = state.read(live.target, live.experiment.champion)
    if now is None or now.experiment.id != live.experiment.id:
        raise ExperimentUnknown(str(live.target), live.target.model)
    return complete(now, signer) if now.experiment.decision == decision else now


def supersede(live: Live, settle_s: float = SETTLE_S) -> Live:
    """End a running experiment whose target was given another version; return it as it is then.

    Otherwise it would go on as soon as its champion is in the target again, such as after a rollback.
    """
    current = live.target.current_version()
    version = "no version" if current is None else f"version {current}"
    return end(live, SUPERSEDED, f"the {live.target} was given {version} during the experiment", settle_s=settle_s)


def complete(live: Live, signer: Signer | None = None) -> Live:
    """Do what follows from the decision of an experiment, as far as it has not been done; return it as it is then."""
    decision = live.experiment.decision
    if decision == PROMOTED and (why := _promote(live, signer)):
        live = state.update(live, lambda now: now.decided(SUPERSEDED, str(live.settings.decided_at), why))
    elif decision in JUDGED and decision != PROMOTED:
        _record(live)
    run_log.finish(live)
    return state.update(live, Live.finished)


def _promote(live: Live, signer: Signer | None) -> str | None:
    """Assign the challenger, unless that was done before; return why it is not possible any more, else None."""
    target, at, experiment = live.target, str(live.settings.decided_at), live.experiment
    history.settle(target)  # confirms the event of a promotion that was interrupted
    current = target.current_version()
    if history.has_event(target, at):
        return None
    if current == experiment.challenger:
        # Another controller is between the assignment and its event, or a person did what was decided.
        history.record(target, current, history.EXPERIMENT, _reason(live), at=at)
        return None
    if current != experiment.champion:
        return "another version was assigned after the decision to promote"
    try:
        challenger = resolve(f"models:/{target.model}/{experiment.challenger}")
    except VersionMissing:
        return f"version {experiment.challenger} no longer exists"
    if not has_passed(challenger, target, signer):
        # Servers may demand a record of the gate. An experiment is the stricter one.
        record_gate(Subject.of(challenger), target, _facts(live), signer, passed=True)
    if signer is not None:
        sign(Subject.of(challenger), signer)
    assign(target, challenger, history.EXPERIMENT, _reason(live), at)
    return None


def _record(live: Live) -> None:
    """Write the event of a decision after which the champion stays."""
    target, champion, at = live.target, live.experiment.champion, str(live.settings.decided_at)
    if not history.has_event(target, at):
        history.record(target, champion, history.EXPERIMENT, _reason(live), at=at)


def _reason(live: Live) -> str:
    experiment = live.experiment
    return f"{experiment.id}: version {experiment.challenger} {experiment.decision}: {live.settings.why}"


def _facts(live: Live) -> dict[str, Any]:
    rules = live.settings.rules
    return {
        "experiment": live.experiment.id,
        "champion": live.experiment.champion,
        "run": live.settings.run_id,
        "margin": rules.margin,
        "alpha": rules.alpha,
        "figures": live.settings.why,
    }


def summary(figures: Figures) -> str:
    """Return the figures in words, for the history."""
    champion, challenger = figures.champion, figures.challenger
    if not (champion.settled and challenger.settled):
        return f"{champion.settled:,} and {challenger.settled:,} settled episodes"
    text = (
        f"return {challenger.return_mean:.1f} over {challenger.settled:,} episodes against "
        f"{champion.return_mean:.1f} over {champion.settled:,}, difference {figures.difference:+.1f}"
    )
    if math.isfinite(figures.lower):
        text += f", bounds {figures.lower:+.1f} and {figures.upper:+.1f}"
    return text
