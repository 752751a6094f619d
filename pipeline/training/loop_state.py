"""The progress of a training loop, which a checkpoint carries."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

_FILE = "search.json"


@dataclass
class LoopState:
    """How far a training loop has come.

    Attributes:
        env_steps: Environment steps since training began.
        next_evaluation: Environment steps at which the next greedy evaluation is due.
        best_step: Environment steps at which the best policy was found.
        best_mean: The mean greedy return of the best policy; None before the first evaluation.
        best_perfect: Whether the best policy reached the target with all returns equal.
        stale: Evaluations since the best policy was found.
        finals: Final evaluations that failed, after which training continued.
        returns: The last training returns, for the running mean.
        training: Pairs of environment steps and the mean return of the last 100 training episodes.
        evaluation: Pairs of environment steps and the mean greedy return.
    """

    env_steps: int = 0
    next_evaluation: int = 0
    best_step: int = 0
    best_mean: float | None = None
    best_perfect: bool = False
    stale: int = 0
    finals: int = 0
    returns: list[float] = field(default_factory=list)
    training: list[tuple[int, float]] = field(default_factory=list)
    evaluation: list[tuple[int, float]] = field(default_factory=list)

    def write(self, directory: Path) -> None:
        """Write the state into a checkpoint's directory."""
        (directory / _FILE).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Return the state that a checkpoint's directory holds."""
        return cls(**json.loads((directory / _FILE).read_text()))
