"""How far a search for the best policy is."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

_FILE = "search.json"


@dataclass
class State:
    """How far a search is; a checkpoint carries it.

    Attributes:
        env_steps: Environment steps since training began.
        next_evaluation: Environment steps at which the next greedy evaluation is due.
        best_step: When the best policy was found.
        best_mean: Its mean greedy return; None before the first evaluation.
        best_perfect: Whether it reached the target with all returns equal.
        stale: Evaluations since then.
        finals: Final evaluations so far.
        returns: The last training returns, for the running mean.
        training: Points of the learning curve, as `LearningCurve` has them.
        evaluation: The same, of evaluations.
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
        """Write it into a checkpoint."""
        (directory / _FILE).write_text(json.dumps(asdict(self)))

    @staticmethod
    def is_in(directory: Path) -> bool:
        """Whether a directory holds one, and so a checkpoint."""
        return (directory / _FILE).exists()

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read it from a checkpoint."""
        return cls(**json.loads((directory / _FILE).read_text()))
