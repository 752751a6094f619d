"""Shows the progress of a training run in a terminal, or in a log."""

import math
import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from pipeline.evaluation.evaluation import Evaluation
    from pipeline.rllib.trainer import Iteration


class TrainingProgress:
    """A progress bar in a terminal, and one line per evaluation everywhere; a context manager.

    Args:
        console: Where it is shown; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._bar = Progress(
            TextColumn("{task.completed:>9,.0f} steps"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TextColumn("at most"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._max_env_steps = 0
        self._task: TaskID | None = None
        self._env_steps = 0
        self._status = ""

    def __enter__(self) -> Self:
        self._begun = self._training_begun = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def budget(self, max_env_steps: int, env_steps: int) -> None:
        """Set the budget of environment steps, and how many of them are done."""
        self._max_env_steps, self._env_steps, self._done_before = max_env_steps, env_steps, env_steps

    def stage(self, message: str) -> None:
        """Print a new stage, and remove the bar."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        self.note(message)

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        self._console.print(f"[{time.monotonic() - self._begun:5.1f} s] {message}", markup=False, soft_wrap=True)

    def iteration(self, iteration: "Iteration") -> None:
        """Update the bar: steps, return, speed, and the time left if training needs the whole budget."""
        if self._task is None:
            self._task = self._bar.add_task("", total=self._max_env_steps, status="")
            self._training_begun, self._done_before = time.monotonic(), self._env_steps
        self._env_steps = iteration.env_steps
        mean = "   -" if math.isnan(iteration.return_mean_100) else f"{iteration.return_mean_100:6.1f}"
        speed = iteration.metrics["train/env_steps_per_second"]
        self._status = f"return {mean} (last 100), {speed:,.0f} steps/s,"
        self._bar.update(self._task, completed=iteration.env_steps, status=self._status)

    def evaluated(self, env_steps: int, result: "Evaluation") -> None:
        """Print the result of a greedy evaluation."""
        elapsed_s, done = time.monotonic() - self._training_begun, env_steps - self._done_before
        left_s = max(0.0, elapsed_s * (self._max_env_steps - env_steps) / max(1, done))
        self.note(f"{env_steps:>9,} steps, {self._status} at most {left_s:.0f} s left; greedy return {result}")
