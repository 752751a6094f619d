"""Errors of a hyperparameter search."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class NotSearchable(PipelineError):
    """A search space names a setting that all trials have to share."""

    setting: str

    template: ClassVar[str] = "'{setting}' cannot be searched: all trials share it. Put it under 'settings'."


@dataclass(eq=False)
class NothingFound(PipelineError):
    """No trial of a search was evaluated, so there is no best one."""

    run_id: str
    trials: int
    failed: int

    def __str__(self) -> str:
        found = f"None of {self.trials} trials was evaluated, {self.failed} failed; nothing was registered. "
        if self.failed:
            return found + f"The child runs of {self.run_id} carry the reasons in the tag 'trial.error'."
        return found + "The time was up before the first evaluation: raise --time-budget-s."
