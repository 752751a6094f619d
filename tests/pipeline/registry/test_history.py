"""The history of a target records every change once, and determines the version that a rollback restores."""

import mlflow
import pytest

from pipeline.registry import history
from pipeline.registry.history import BY_HAND, ROLLBACK, Event
from pipeline.registry.target import Target
from serving.registry.tracking import stage_warnings_ignored

PRODUCTION = Target("cartpole-ppo", "Production")


def events(*changes):
    """Return events: a number stands for a promotion, `(number,)` for a rollback to that version."""
    return [
        Event("", change[0], "me", ROLLBACK, "")
        if isinstance(change, tuple)
        else Event("", change, "me", "promotion", "")
        for change in changes
    ]


@pytest.mark.parametrize(
    ("changes", "existing", "expected"),
    [
        ([], [1], None),
        ([1], [1], None),
        ([1, 2], [1, 2], 1),
        ([1, 2, 3], [1, 2, 3], 2),
        ([1, 2, 3, (2,)], [1, 2, 3], 1),
        ([1, 2, 3, (2,), (1,)], [1, 2, 3], None),
        ([1, 2, 3, (2,), 4], [1, 2, 3, 4], 2),
        ([1, 2, 1], [1, 2], 2),
        ([1, 2, 1, (2,)], [1, 2], 1),
        ([1, 2, 3], [1, 3], 1),
        ([1, 2, 3, (1,)], [1, 3], None),
        ([1, 2, 3], [3], None),
        ([1, 2, None], [1, 2], 2),
        ([1, 2, 2], [1, 2], 1),
    ],
    ids=str,
)
def test_a_rollback_restores_the_last_existing_version_that_was_not_rolled_back(changes, existing, expected):
    assert history.previous(events(*changes), existing) == expected


@pytest.fixture
def two_versions(store):
    client = mlflow.MlflowClient()
    client.create_registered_model("cartpole-ppo")
    for _ in range(2):
        client.create_model_version("cartpole-ppo", f"{store}/model")
    return client


def test_events_are_tags_of_the_registered_model_in_chronological_order(two_versions):
    PRODUCTION.assign(1)
    history.record(PRODUCTION, 1, "promotion", "return 500.0")
    PRODUCTION.assign(2)
    history.record(PRODUCTION, 2, "forced", "its mean is low", by="someone")
    first, second = history.events(PRODUCTION)
    assert (first.version, first.kind, first.why) == (1, "promotion", "return 500.0")
    assert (second.version, second.kind, second.by) == (2, "forced", "someone")
    tags = two_versions.get_registered_model("cartpole-ppo").tags
    assert sorted(tags) == [f"history.stage.Production.{first.at}", f"history.stage.Production.{second.at}"]


def test_a_change_by_hand_is_recorded_once_with_an_unknown_user(two_versions):
    PRODUCTION.assign(1)
    history.record(PRODUCTION, 1, "promotion", "")
    with stage_warnings_ignored():
        two_versions.transition_model_version_stage("cartpole-ppo", "2", "Production", archive_existing_versions=True)
    for _ in range(2):
        last = history.events(PRODUCTION)[-1]
        assert (last.version, last.kind, last.by) == (2, BY_HAND, "unknown")
        assert len(history.events(PRODUCTION)) == 2


def test_a_version_that_leaves_its_stage_is_recorded(two_versions):
    PRODUCTION.assign(1)
    history.record(PRODUCTION, 1, "promotion", "")
    with stage_warnings_ignored():
        two_versions.transition_model_version_stage("cartpole-ppo", "1", "Archived")
    assert history.events(PRODUCTION)[-1].version is None


def test_an_alias_has_its_own_history(two_versions):
    champion = Target("cartpole-ppo", "champion", is_alias=True)
    two_versions.set_registered_model_alias("cartpole-ppo", "champion", "1")
    assert [event.version for event in history.events(champion)] == [1]
    assert history.events(PRODUCTION) == []
    assert champion in history.targets("cartpole-ppo")
