"""The chart of an experiment."""

import pytest

from pipeline.experiment.chart import METRICS, draw


@pytest.mark.parametrize(("last_s", "unit"), [(50, "seconds"), (600, "minutes"), (20_000, "hours"), (10**6, "days")])
def test_the_chart_shows_returns_bounds_and_share_over_the_time(last_s, unit):
    metrics = {name: [(0.0, 1.0), (float(last_s), 2.0)] for name in METRICS}
    returns, difference, share = draw("a title", 5.0, metrics).axes
    assert [len(axes.lines) for axes in (returns, difference, share)] == [2, 5, 1]
    assert share.get_xlabel() == f"{unit} since the start"
    assert [line.get_ydata()[0] for line in difference.lines[3:]] == [0, -5.0]


@pytest.mark.filterwarnings("error")
def test_an_experiment_without_settled_episodes_has_a_chart():
    returns, *_ = draw("a title", 5.0, {"share": [(0.0, 0.1)]}).axes
    assert not returns.lines
