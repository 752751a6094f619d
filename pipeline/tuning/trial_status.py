"""Where the trials of a search over settings stand."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self


class TrialState(StrEnum):
    """What became of a trial so far."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED_EARLY = "stopped early"
    OUT_OF_TIME = "out of time"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def is_final(self) -> bool:
        """Whether a resumed search leaves the trial as it is."""
        return self not in {TrialState.WAITING, TrialState.RUNNING, TrialState.INTERRUPTED}


@dataclass
class Standing:
    """Where one trial stands.

    Attributes:
        number: Of the trial, from 1.
        settings: What it drew, by name.
        state: What became of it.
        run_id: Its MLflow run, once it has one.
        env_steps: Environment steps since it began.
        best_mean: Its best mean greedy return; None before the first evaluation.
        best_step: Environment steps at which that was.
        best_perfect: Whether that reached the target with all returns equal.
    """

    number: int
    settings: Mapping[str, Any]
    state: TrialState = TrialState.WAITING
    run_id: str | None = None
    env_steps: int = 0
    best_mean: float | None = None
    best_step: int = 0
    best_perfect: bool = False

    def as_tag(self) -> str:
        """As a run keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_tag(cls, tag: str) -> Self:
        """What `as_tag` made."""
        fields = json.loads(tag)
        return cls(**fields | {"state": TrialState(fields["state"])})


def best(standings: Iterable[Standing]) -> Standing | None:
    """The trial with the best greedy return; of equal ones the perfect, then the quicker."""
    judged = [each for each in standings if each.best_mean is not None and each.state != TrialState.FAILED]
    return max(judged, key=lambda each: (each.best_mean, each.best_perfect, -each.best_step), default=None)
