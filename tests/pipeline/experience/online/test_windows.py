import numpy as np
import pyarrow as pa
import pytest

from pipeline.experience.online.windows import online_return
from pipeline.experience.whole_episodes import SUMMARY_SCHEMA


def summary(*episodes):
    """A summary of episodes: version, end in seconds, return, length, and changes of the columns."""
    rows = [
        {
            "eps_id": str(number),
            "version": version,
            "versions": 1,
            "start": 0,
            "end": int(end * 1e9),
            "length": length,
            "return": value,
            "done": "terminated",
            "rewards_reported": length,
            "complete": True,
            "decisions": length,
            "layout": 0,
            **changes,
        }
        for number, (version, end, value, length, changes) in enumerate(episodes)
    ]
    return pa.Table.from_pylist(rows, schema=SUMMARY_SCHEMA)


def test_the_figures_of_a_window_are_those_of_its_episodes():
    found = online_return(summary((3, 3600, 10.0, 10, {}), (3, 7199.9, 20.0, 30, {}), (3, 7200, 7.0, 7, {})), 3600)
    first, second = found.windows
    assert (first.version, first.start_s, first.end_s) == (3, 3600, 7200)
    assert (first.figures.episodes, first.figures.return_mean, first.figures.length_mean) == (2, 15.0, 20.0)
    assert first.figures.return_error == pytest.approx(np.std([10, 20], ddof=1) / 2**0.5)
    assert (second.start_s, second.figures.episodes, second.figures.return_error) == (7200, 1, 0.0)


def test_versions_have_windows_and_totals_of_their_own():
    found = online_return(summary((4, 100, 1.0, 1, {}), (3, 200, 2.0, 1, {}), (3, 9000, 4.0, 1, {})), 3600)
    assert [(each.version, each.start_s) for each in found.windows] == [(3, 0), (3, 7200), (4, 0)]
    assert {version: each.return_mean for version, each in found.totals.items()} == {3: 3.0, 4: 1.0}


def test_episodes_without_a_reported_end_and_those_of_several_versions_do_not_count():
    """A client that crashes reports nothing: the sum of what it reported is not its return."""
    unreported, mixed = (3, 200, 99.0, 1, {"done": "unreported"}), (3, 300, 99.0, 1, {"versions": 2})
    found = online_return(summary((3, 100, 1.0, 1, {"done": "truncated"}), unreported, mixed), 3600)
    assert found.totals[3].return_mean == 1.0
    assert (found.unreported, found.mixed) == (1, 1)


def test_without_episodes_there_is_nothing():
    found = online_return(summary(), 3600)
    assert (found.totals, found.windows) == ({}, [])
