"""What "previous" means: an undo list that changes by hand and deletions do not confuse."""

import mlflow
import pytest

from pipeline.registry import history
from pipeline.registry.history import BY_HAND, ROLLBACK, Event
from pipeline.registry.target import Slot, stages

PRODUCTION = Slot("cartpole-ppo", "Production")


def events(*changes):
    """A number is a promotion, `(number,)` a rollback to it."""
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
def test_a_rollback_goes_to_the_last_version_that_was_not_undone_and_still_exists(changes, existing, expected):
    assert history.previous(events(*changes), existing) == expected


@pytest.fixture
def two_versions(store):
    client = mlflow.MlflowClient()
    client.create_registered_model("cartpole-ppo")
    for _ in range(2):
        client.create_model_version("cartpole-ppo", f"{store}/model")
    return client


def test_events_are_tags_of_the_registered_model_in_the_order_they_came(two_versions):
    PRODUCTION.put(1)
    history.record(PRODUCTION, 1, "promotion", "return 500.0")
    PRODUCTION.put(2)
    history.record(PRODUCTION, 2, "forced", "its mean is low", by="someone")
    first, second = history.events(PRODUCTION)
    assert (first.version, first.kind, first.why) == (1, "promotion", "return 500.0")
    assert (second.version, second.kind, second.by) == (2, "forced", "someone")
    tags = two_versions.get_registered_model("cartpole-ppo").tags
    assert sorted(tags) == [f"history.stage.Production.{first.at}", f"history.stage.Production.{second.at}"]


def test_a_change_by_hand_is_recorded_once_by_whom_unknown(two_versions):
    PRODUCTION.put(1)
    history.record(PRODUCTION, 1, "promotion", "")
    with stages():
        two_versions.transition_model_version_stage("cartpole-ppo", "2", "Production", archive_existing_versions=True)
    for _ in range(2):
        last = history.events(PRODUCTION)[-1]
        assert (last.version, last.kind, last.by) == (2, BY_HAND, "unknown")
        assert len(history.events(PRODUCTION)) == 2


def test_an_emptied_stage_is_a_change_too(two_versions):
    PRODUCTION.put(1)
    history.record(PRODUCTION, 1, "promotion", "")
    with stages():
        two_versions.transition_model_version_stage("cartpole-ppo", "1", "Archived")
    assert history.events(PRODUCTION)[-1].version is None


def test_an_alias_has_a_history_of_its_own(two_versions):
    champion = Slot("cartpole-ppo", "champion", is_alias=True)
    two_versions.set_registered_model_alias("cartpole-ppo", "champion", "1")
    assert [event.version for event in history.events(champion)] == [1]
    assert history.events(PRODUCTION) == []
    assert champion in history.slots("cartpole-ppo")
