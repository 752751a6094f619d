"""The status of each trial of a hyperparameter search."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self


class TrialState(StrEnum):
    """The state of a trial."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED_EARLY = "stopped early"
    OUT_OF_TIME = "out of time"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def is_final(self) -> bool:
        """Whether a resumed search does not run the trial again."""
        return self not in {TrialState.WAITING, TrialState.RUNNING, TrialState.INTERRUPTED}


@dataclass
class TrialStatus:
    """The progress of one trial.

    Attributes:
        number: The number of the trial, from 1.
        settings: The searched settings by name.
        state: Its state.
        run_id: The id of its MLflow run; empty until it has one.
        env_steps: Environment steps since the trial began.
        best_mean: Its best mean greedy return; None before the first evaluation.
        best_step: Environment steps at which that policy was found.
        best_perfect: Whether that policy reached the target with all returns equal.
    """

    number: int
    settings: Mapping[str, Any]
    state: TrialState = TrialState.WAITING
    run_id: str = ""
    env_steps: int = 0
    best_mean: float | None = None
    best_step: int = 0
    best_perfect: bool = False

    def as_tag(self) -> str:
        """Return the status as JSON, for a tag of the trial's run."""
        return json.dumps(asdict(self))

    @classmethod
    def from_tag(cls, tag: str) -> Self:
        """Return the status that `as_tag` wrote."""
        fields = json.loads(tag)
        return cls(**fields | {"state": TrialState(fields["state"])})


def best(statuses: Iterable[TrialStatus]) -> TrialStatus | None:
    """Return the trial with the best greedy return; of equal ones a perfect one, then the one with fewer steps."""
    candidates = [each for each in statuses if each.best_mean is not None and each.state != TrialState.FAILED]
    return max(candidates, key=lambda each: (each.best_mean, each.best_perfect, -each.best_step), default=None)
