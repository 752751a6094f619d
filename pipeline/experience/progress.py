"""Shows the progress of work on experience: a bar in a terminal, a line per stage elsewhere."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class StageProgress:
    """A progress bar for one stage after another; a context manager.

    Args:
        console: Where it is shown; standard error by default, so that standard output has only results.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, stderr=True)
        self._bar = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def stage(self, description: str, total: int) -> None:
        """Begin a stage of `total` units."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(description, total=total)
        elapsed = time.monotonic() - self._begun
        self._console.print(f"[{elapsed:5.1f} s] {description}", markup=False, soft_wrap=True)

    def advance(self, units: int = 1) -> None:
        """Count units of the stage as done."""
        if self._task is not None:
            self._bar.advance(self._task, units)
