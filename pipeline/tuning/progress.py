"""A search over settings as a person sees it: a table that is redrawn in a terminal, or a line per evaluation."""

import time
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.tuning.trial_status import Standing, TrialState, best

_STYLES = {
    TrialState.RUNNING: "cyan",
    TrialState.FAILED: "red",
    TrialState.FINISHED: "green",
    TrialState.INTERRUPTED: "yellow",
}


class TuningTable:
    """A context manager, within which the table stands below what is said."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._standings: Sequence[Standing] = ()
        self._live = Live(console=self._console, refresh_per_second=1, get_renderable=self._table)

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def trials(self, standings: Sequence[Standing]) -> None:
        """Show these from now on."""
        self._standings = standings

    def stage(self, message: str) -> None:
        """Say what begins now."""
        self.note(message)

    def note(self, message: str) -> None:
        """Leave a line."""
        self._console.print(f"[{time.monotonic() - self._begun:5.1f} s] {message}", markup=False, soft_wrap=True)

    def changed(self, standing: Standing) -> None:
        """Redraw the table at once, not within the second; or leave a line."""
        if self._live.is_started:
            self._live.refresh()
        else:
            self.note(f"trial {standing.number}: {_steps(standing)} steps, {_return(standing)}, {standing.state}")

    def _table(self) -> Table | str:
        if not self._standings:
            return ""
        best_one = best(self._standings)
        table = Table("trial", *_names(self._standings), box=None, header_style="bold")
        for title in ("steps", "greedy return"):
            table.add_column(title, justify="right")
        table.add_column("state")
        for each in self._standings:
            settings = [f"{value:g}" if isinstance(value, float) else str(value) for value in each.settings.values()]
            mark = " *" if each is best_one else ""
            mean = "-" if each.best_mean is None else f"{each.best_mean:.1f}{mark}"
            style = _STYLES.get(each.state)
            table.add_row(str(each.number), *settings, _steps(each), mean, str(each.state), style=style)
        table.caption = f"{time.monotonic() - self._begun:.0f} s; * the best so far"
        return table


def _names(standings: Sequence[Standing]) -> list[str]:
    return list(standings[0].settings)


def _steps(standing: Standing) -> str:
    return f"{standing.env_steps:,}"


def _return(standing: Standing) -> str:
    return "not evaluated yet" if standing.best_mean is None else f"best greedy return {standing.best_mean:.1f}"
