"""What `stats` and `audit` say of each version."""

import statistics
from collections import Counter

import pytest

from pipeline.experience.audit import audit
from pipeline.experience.stats import stats
from pipeline.experience.whole_episodes import WholeEpisodes
from tests.pipeline.experience.recording import (
    MODEL,
    Decision,
    Feedback,
    decision_table,
    feedback_table,
    ns,
    spec,
    write_segment,
)

RETURNS = {2: [10.0, 12.0, 17.0], 3: [1.0, -4.5]}
ENDS = ["terminated", "truncated", None]


@pytest.fixture
def recorded(store):
    """Record episodes with the returns of RETURNS, of 2, 3 and 4 steps; one reward of each is reported."""
    for version, returns in RETURNS.items():
        decisions, events = [], []
        for number, total in enumerate(returns):
            name, audits = f"{version}-{number}", ["ok", "differs", "unchecked", "ok"]
            decisions += [
                Decision(name, step, 9000 - step, {"observations": [0] * 4}, {"action": step + 7}, audit=audits[step])
                for step in range(number + 2)
            ]
            events.append(Feedback(name, 8000, {0: 1.0}, total=total, done=ENDS[number]))
        write_segment(
            store,
            [decision_table(spec(version), decisions, segment=version)],
            feedback_table(events),
            version,
            dropped=(version, 10),
        )
    return store


def test_before_a_compaction_there_is_what_the_manifests_know(recorded):
    found = stats(recorded, MODEL)
    assert (found.digest, found.segments, found.new_segments) == (None, 2, 2)
    assert (found.dropped_decisions, found.dropped_feedback) == (5, 20)
    two, three = found.versions
    assert (two.version, two.recorded, two.audit) == (2, 9, {"ok": 4, "differs": 3, "unchecked": 2})
    assert (three.version, three.recorded, three.audit) == (3, 5, {"ok": 2, "differs": 2, "unchecked": 1})
    assert (two.episodes, two.return_mean, two.rewards_reported) == (0, None, None)
    assert (two.first_ns, two.last_ns) == (ns(9000), ns(8000))


def test_after_a_compaction_there_are_returns_and_lengths(recorded, compacted):
    compacted()
    found = stats(recorded, MODEL)
    assert (found.new_segments, found.digest) == (0, WholeEpisodes.open(recorded, MODEL).digest)
    for each in found.versions:
        returns = RETURNS[each.version]
        lengths = range(2, 2 + len(returns))
        assert (each.episodes, each.decisions) == (len(returns), sum(lengths))
        assert each.return_mean == pytest.approx(statistics.mean(returns))
        assert each.return_std == pytest.approx(statistics.pstdev(returns))
        assert (each.return_min, each.return_max) == (min(returns), max(returns))
        assert each.length_mean == statistics.mean(lengths)
        assert each.rewards_reported == pytest.approx(len(returns) / sum(lengths))
        ends = Counter(ENDS[: len(returns)])
        assert (each.terminated, each.truncated, each.unreported) == (1, 1, ends[None])


def test_segments_since_the_compaction_are_counted(recorded, compacted):
    compacted()
    write_segment(recorded, segment=9)
    assert stats(recorded, MODEL).new_segments == 1


def test_means_over_many_batches_are_those_of_all(store, compacted, monkeypatch):
    monkeypatch.setattr("pipeline.experience.stats._BATCH_ROWS", 7)
    returns = [float(number % 17) + 1e6 for number in range(60)]
    decisions = [
        Decision(f"{number}", 0, 9000, {"observations": [0] * 4}, {"action": 0}) for number in range(len(returns))
    ]
    events = [Feedback(f"{number}", 8000, total=total, done="terminated") for number, total in enumerate(returns)]
    write_segment(store, [decision_table(spec(), decisions)], feedback_table(events))
    compacted()
    (version,) = stats(store, MODEL).versions
    assert version.return_mean == pytest.approx(statistics.mean(returns), abs=1e-6)
    assert version.return_std == pytest.approx(statistics.pstdev(returns), abs=1e-6)


def test_the_audit_counts_and_lists_what_differs(recorded):
    report = audit(recorded, MODEL, limit=3)
    assert report.versions == {
        2: {"ok": 4, "differs": 3, "unchecked": 2},
        3: {"ok": 2, "differs": 2, "unchecked": 1},
    }
    assert [(each.version, each.step, each.served) for each in report.differing] == [(2, 1, {"action": 8})] * 3
    first = report.differing[0]
    assert (first.file, first.offset) == (f"decisions/{MODEL}/2027-01-14/r1-2-v2.parquet", 100)
    assert first.distribution == [0.5, 8999.0]
    assert len(audit(recorded, MODEL, limit=100).differing) == 5
    assert not audit(recorded, MODEL, limit=0).differing
