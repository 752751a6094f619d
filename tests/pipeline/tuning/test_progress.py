"""The trials of a search are a table in a terminal, and lines elsewhere."""

from rich.console import Console

from pipeline.tuning.progress import TuningTable
from pipeline.tuning.trial_status import TrialState, TrialStatus

STATUSES = [
    TrialStatus(1, {"lr": 0.003}, TrialState.FINISHED, "a", 9000, 500.0),
    TrialStatus(2, {"lr": 0.0001}, TrialState.RUNNING, "b", 4096, 20.0),
    TrialStatus(3, {"lr": 0.01}),
]


def test_the_table_shows_settings_steps_return_and_state(capsys):
    with TuningTable() as progress:
        progress.trials(STATUSES)
        Console(width=100).print(progress._table())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["trial", "lr", "steps", "greedy", "return", "state"]
    assert lines[1] == ["1", "0.003", "9,000", "500.0", "*", "finished"]
    assert lines[2] == ["2", "0.0001", "4,096", "20.0", "running"]
    assert lines[3] == ["3", "0.01", "0", "-", "waiting"]


def test_without_a_terminal_each_change_is_a_line(capsys):
    with TuningTable() as progress:
        progress.trials(STATUSES)
        progress.changed(STATUSES[1])
    assert "trial 2: 4,096 steps, best greedy return 20.0, running" in capsys.readouterr().out
