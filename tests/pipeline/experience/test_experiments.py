"""Whole episodes say which experiment, arm and share their decisions belonged to, and when they were last reported."""

import pyarrow as pa
import pytest

from pipeline.experience.whole_episodes import WholeEpisodes
from serving.experience.tables import EXPERIMENT_FIELDS
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

NONE = (None, None, None)


def episode(name, memberships):
    """An episode whose decisions have an experiment, an arm and a share each."""
    return [
        Decision(
            *(name, step, 5000.0 - step / 100, {"observations": [step] * 4}, {"action": 0}),
            **dict(zip(("experiment", "arm", "share"), each, strict=True)),
        )
        for step, each in enumerate(memberships)
    ]


def write(store, decisions, *events, without_columns=False):
    table = decision_table(spec(), decisions)
    if without_columns:
        table = table.drop_columns([field.name for field in EXPERIMENT_FIELDS])
    write_segment(store, [table], feedback_table(events) if events else None)


def columns(table, *names):
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def opened(store):
    whole = WholeEpisodes.open(store, MODEL)
    return pa.concat_tables(whole.tables()), whole.summary()


def test_a_step_has_those_of_its_decision_and_an_episode_those_of_its_first(store, compacted):
    begun = [("e1", "challenger", 0.1), ("e1", "challenger", 0.1), NONE]
    write(store, episode("a", begun))
    compacted()
    steps, summary = opened(store)
    assert columns(steps, "experiment", "arm", "share") == begun
    assert columns(summary, "experiment", "arm", "share") == [("e1", "challenger", 0.1)]


def test_an_episode_from_before_an_experiment_is_in_none(store, compacted):
    write(store, episode("a", [NONE, ("e1", "champion", 0.1)]))
    compacted()
    _, summary = opened(store)
    assert columns(summary, "experiment", "arm", "share") == [NONE]


def test_tables_of_earlier_releases_have_no_experiment(store, compacted):
    write(store, episode("a", [NONE] * 3), without_columns=True)
    compacted()
    steps, summary = opened(store)
    assert columns(steps, "experiment", "arm", "share") == [NONE] * 3
    assert columns(summary, "experiment", "arm", "share") == [NONE]


@pytest.mark.parametrize(
    ("events", "reported"),
    [
        ((), None),
        ((Feedback("a", 4000, {0: 1.0}),), 4000),
        ((Feedback("a", 3000, done="terminated"), Feedback("a", 4000, {0: 1.0}), Feedback("b", 10)), 3000),
    ],
)
def test_the_summary_has_the_time_of_the_last_report(store, compacted, events, reported):
    write(store, episode("a", [NONE] * 2), *events)
    compacted()
    _, summary = opened(store)
    assert summary["reported"].cast(pa.int64()).to_pylist() == [None if reported is None else ns(reported)]
