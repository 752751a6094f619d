"""The history of a target has each change once, whatever fails, and determines the version that a rollback restores."""

import os

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from pipeline.registry import history
from pipeline.registry.history import BY_HAND, ROLLBACK, Change, Event
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


def tags(client):
    return dict(client.get_registered_model("cartpole-ppo").tags)


def test_events_are_tags_of_the_registered_model_in_chronological_order(two_versions):
    PRODUCTION.assign(1)
    history.record(PRODUCTION, 1, "promotion", "return 500.0")
    PRODUCTION.assign(2)
    history.record(PRODUCTION, 2, "forced", "its mean is low", by="someone")
    first, second = history.events(PRODUCTION)
    assert (first.version, first.kind, first.why) == (1, "promotion", "return 500.0")
    assert (second.version, second.kind, second.by) == (2, "forced", "someone")
    assert sorted(tags(two_versions)) == [
        f"history.stage.Production.{first.at}",
        f"history.stage.Production.{second.at}",
    ]


def test_a_change_by_hand_is_shown_at_once_and_recorded_once_with_an_unknown_user(two_versions):
    PRODUCTION.assign(1)
    history.record(PRODUCTION, 1, "promotion", "")
    with stage_warnings_ignored():
        two_versions.transition_model_version_stage("cartpole-ppo", "2", "Production", archive_existing_versions=True)
    before = tags(two_versions)
    for _ in range(2):
        last = history.events(PRODUCTION)[-1]
        assert (last.version, last.kind, last.by) == (2, BY_HAND, "unknown")
        assert len(history.events(PRODUCTION)) == 2
    assert tags(two_versions) == before  # an account that may only read can list the history
    with history.recorded(Change(PRODUCTION, 1, "promotion", "")):
        PRODUCTION.assign(1)
    assert [(each.version, each.kind) for each in history.events(PRODUCTION)] == [
        (1, "promotion"),
        (2, BY_HAND),
        (1, "promotion"),
    ]


@pytest.mark.usefixtures("two_versions")
def test_a_change_by_hand_that_two_commands_record_at_once_is_one_event():
    PRODUCTION.assign(1)
    for _ in range(2):
        history.record(PRODUCTION, 1, BY_HAND, "changed in the MLflow UI or API", by="unknown")
    assert [each.version for each in history.events(PRODUCTION)] == [1]


class Refused(Exception):
    """What a server answers to one request of a change."""


def refuse(*_, **__):
    raise Refused


def promote_to_production(version):
    with history.recorded(Change(PRODUCTION, version, "promotion", "")):
        PRODUCTION.assign(version)


@pytest.mark.parametrize("refused", ["set_registered_model_tag", "transition_model_version_stage"])
def test_a_change_that_fails_leaves_stage_and_history_as_they_were(two_versions, monkeypatch, refused):
    promote_to_production(1)
    before = tags(two_versions)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, refused, refuse)
        with pytest.raises(Refused):
            promote_to_production(2)
    assert (PRODUCTION.current_version(), tags(two_versions)) == (1, before)


def test_a_process_that_dies_before_the_change_leaves_no_event(two_versions, monkeypatch):
    promote_to_production(1)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "delete_registered_model_tag", refuse)
        patch.setattr(Target, "assign", refuse)
        with pytest.raises(Refused):
            promote_to_production(2)
    assert len(tags(two_versions)) == 2
    assert [each.version for each in history.events(PRODUCTION)] == [1]
    with stage_warnings_ignored():
        two_versions.transition_model_version_stage("cartpole-ppo", "1", "Archived")
    promote_to_production(2)
    assert [each.version for each in history.events(PRODUCTION)] == [1, None, 2]


def test_a_process_that_dies_after_the_change_leaves_its_event(two_versions, monkeypatch):
    written = []

    def write_once(client, model, key, value):
        written.append(key)
        if len(written) > 1:
            raise MlflowException("the server is down")
        set_tag(client, model, key, value)

    set_tag = mlflow.MlflowClient.set_registered_model_tag
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_tag", write_once)
        promote_to_production(1)
    promote_to_production(2)
    assert [(each.version, each.kind) for each in history.events(PRODUCTION)] == [(1, "promotion"), (2, "promotion")]
    assert not [value for value in tags(two_versions).values() if "confirmed" in value]


@pytest.mark.usefixtures("two_versions")
def test_a_user_without_a_name_is_recorded_by_number(monkeypatch):
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    promote_to_production(1)
    assert [each.by for each in history.events(PRODUCTION)] == ["uid 54321"]


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


@pytest.mark.parametrize("edited", ["", "not JSON", "7", '{"version": 1}', '{"color": "red"}'])
def test_a_tag_that_somebody_has_edited_is_no_event(two_versions, edited):
    PRODUCTION.assign(1)
    history.record(PRODUCTION, 1, "promotion", "")
    (key,) = tags(two_versions)
    two_versions.set_registered_model_tag("cartpole-ppo", key, edited)
    assert [(each.version, each.kind) for each in history.events(PRODUCTION)] == [(1, BY_HAND)]
