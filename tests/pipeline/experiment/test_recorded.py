"""Plans that begin from recorded experience."""

import io

import pytest
from click.testing import CliRunner
from rich.console import Console

from pipeline.cli import cli
from pipeline.experience.compaction.run import CompactOptions, compact
from pipeline.experience.errors import NotCompacted, VersionNotRecorded
from pipeline.experience.progress import StageProgress
from pipeline.experiment.errors import ChampionNotRecorded
from pipeline.experiment.recorded import recorded_champion, recorded_returns
from serving.experience.store import open_store
from tests.pipeline.experience.recording import (
    MODEL,
    NOW_NS,
    Decision,
    Feedback,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)

DAY_S = 86_400.0


def record(store, version, returns, days_ago, segment) -> None:
    """Record episodes of one decision, one every tenth of a day, the last one `days_ago` days ago."""
    names = [f"{version}-{index}" for index in range(len(returns))]
    times = [(days_ago + 0.1 * index) * DAY_S for index in range(len(returns))]
    decisions = [
        Decision(name, 0, at, {"observations": [0.0] * 4}, {"action": 0}) for name, at in zip(names, times, strict=True)
    ]
    reports = [
        Feedback(name, at - 60, total=each, done="terminated")
        for name, at, each in zip(names, times, returns, strict=True)
    ]
    write_segment(store, [decision_table(spec(version), decisions, segment=segment)], feedback_table(reports), segment)


@pytest.fixture
def uri(tmp_path) -> str:
    """Experience of version 2, then 3, of which an experiment was one with 4."""
    path = str(tmp_path / "experience")
    store = open_store(path)
    record(store, 2, [1.0] * 5, days_ago=20.5, segment=0)
    record(store, 3, [-150.0, -160.0, -170.0, -160.0], days_ago=0.9, segment=1)
    record(store, 4, [-300.0] * 3, days_ago=0.8, segment=2)
    return path


def compacted(uri):
    with StageProgress(Console(file=io.StringIO())) as progress:
        compact(open_store(uri), MODEL, CompactOptions(), progress, NOW_NS)


def test_the_champion_is_the_latest_version_apart_from_the_challenger(uri):
    compacted(uri)
    found = recorded_champion(uri, None, challenger=4)
    assert (found.model, found.version, found.episodes) == (MODEL, 3, 4)
    assert found.baseline.mean == -160.0
    assert found.baseline.std == pytest.approx(50**0.5)
    assert found.baseline.episodes_per_day == pytest.approx(12 / (20.9 - 0.8))


def test_episodes_whose_end_nobody_reported_do_not_count(uri):
    """What was reported of them is no return."""
    store = open_store(uri)
    decisions = [Decision("left", 0, 0.85 * DAY_S, {"observations": [0.0] * 4}, {"action": 0})]
    write_segment(store, [decision_table(spec(3), decisions, segment=3)], None, 3)
    compacted(uri)
    found = recorded_returns(uri, MODEL, 3)
    assert (found.episodes, found.baseline.mean) == (4, -160.0)


def test_the_returns_of_a_version_that_was_not_recorded_are_unknown(uri):
    compacted(uri)
    with pytest.raises(VersionNotRecorded, match="version 7 of 'cartpole-ppo'; there are of: 2, 3, 4"):
        recorded_returns(uri, MODEL, 7)


def test_the_command_shows_the_days_at_the_recorded_rate(uri):
    compacted(uri)
    result = CliRunner().invoke(cli, ["experiment", "plan", "4", "--experience", uri])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(
        f"Champion: version 3 of '{MODEL}', 4 episodes; 0.6 episodes a day of all versions."
    )
    assert "days" in result.output
    assert "Twice the margin needs a quarter of them." in result.output


def test_episodes_of_the_challenger_alone_are_not_enough(tmp_path):
    uri = str(tmp_path)
    record(open_store(uri), 4, [1.0], days_ago=2, segment=0)
    compacted(uri)
    with pytest.raises(ChampionNotRecorded):
        recorded_champion(uri, None, challenger=4)


def test_experience_that_is_not_compacted_has_no_returns(uri):
    with pytest.raises(NotCompacted):
        recorded_champion(uri, None, challenger=4)
