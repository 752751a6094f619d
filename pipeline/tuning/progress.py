"""Shows the trials of a search: as a table in a terminal, elsewhere as one line per evaluation."""

import time
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.tuning.trial_status import TrialState, TrialStatus, best

_STYLES = {
    TrialState.RUNNING: "cyan",
    TrialState.FAILED: "red",
    TrialState.FINISHED: "green",
    TrialState.INTERRUPTED: "yellow",
}


class TuningTable:
    """A table of trials below the printed lines; a context manager."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._statuses: Sequence[TrialStatus] = ()
        self._live = Live(console=self._console, refresh_per_second=1, get_renderable=self._table)

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def trials(self, statuses: Sequence[TrialStatus]) -> None:
        """Set the trials to show; their statuses change."""
        self._statuses = statuses

    def note(self, message: str) -> None:
        """Print a line."""
        self._console.print(f"[{time.monotonic() - self._begun:5.1f} s] {message}", markup=False, soft_wrap=True)

    def changed(self, status: TrialStatus) -> None:
        """Redraw the table at once, or print a line where there is no table."""
        if self._live.is_started:
            self._live.refresh()
        else:
            self.note(f"trial {status.number}: {_steps(status)} steps, {_return(status)}, {status.state}")

    def _table(self) -> Table | str:
        if not self._statuses:
            return ""
        best_one = best(self._statuses)
        table = Table("trial", *self._statuses[0].settings, box=None, header_style="bold")
        for title in ("steps", "greedy return"):
            table.add_column(title, justify="right")
        table.add_column("state")
        for each in self._statuses:
            settings = [f"{value:g}" if isinstance(value, float) else str(value) for value in each.settings.values()]
            mark = " *" if each is best_one else ""
            mean = "-" if each.best_mean is None else f"{each.best_mean:.1f}{mark}"
            style = _STYLES.get(each.state)
            table.add_row(str(each.number), *settings, _steps(each), mean, str(each.state), style=style)
        table.caption = f"{time.monotonic() - self._begun:.0f} s; * the best so far"
        return table


def _steps(status: TrialStatus) -> str:
    return f"{status.env_steps:,}"


def _return(status: TrialStatus) -> str:
    return "not evaluated yet" if status.best_mean is None else f"best greedy return {status.best_mean:.1f}"
