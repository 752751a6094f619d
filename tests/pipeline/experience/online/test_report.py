import mlflow
import pytest

from pipeline.experience.errors import NotCompacted
from pipeline.experience.online.errors import ModelNotRegistered
from pipeline.experience.online.report import report
from pipeline.experience.online.section import BEGIN
from tests.pipeline.experience.recording import MODEL, NOW_NS

HOUR = 3600
NOW_S = NOW_NS // 10**9
"""A whole hour."""

pytestmark = pytest.mark.usefixtures("registered")


def history(run_id, key):
    return [
        (each.step - NOW_S, each.value, each.timestamp - each.step * 1000)
        for each in mlflow.MlflowClient().get_metric_history(run_id, key)
    ]


def child(reported, version):
    found = mlflow.MlflowClient().search_runs([reported.experiment_id], f"tags.`online.version` = '{version}'")
    (run,) = found
    return run


def test_each_window_is_a_point_of_the_run_and_of_the_logged_model_of_its_version(recorder):
    recorder.record((1, 2.5 * HOUR, 10.0), (1, 2.4 * HOUR, 20.0), (1, 1.5 * HOUR, 5.0), (2, 1.5 * HOUR, 7.0))
    reported = report(recorder.store, MODEL, HOUR)
    assert reported.new_windows == {1: 2, 2: 1}
    first = child(reported, 1)
    assert history(first.info.run_id, "online/return_mean") == [(-2 * HOUR, 15.0, 0), (-HOUR, 5.0, 0)]
    assert [value for _, value, _ in history(first.info.run_id, "online/episodes")] == [2.0, 1.0]
    assert history(child(reported, 2).info.run_id, "online/length_mean") == [(-HOUR, 1.0, 0)]
    version = mlflow.MlflowClient().get_model_version(MODEL, "1")
    model = mlflow.get_logged_model(version.source.removeprefix("models:/"))
    assert {each.key: each.value for each in model.metrics}["online/return_mean"] == 5.0


def test_reporting_again_adds_nothing_and_later_windows_are_added(recorder, registered):
    recorder.record((1, 2.5 * HOUR, 10.0))
    first = report(recorder.store, MODEL, HOUR)
    assert report(recorder.store, MODEL, HOUR).new_windows == {1: 0}
    recorder.record((1, -0.5 * HOUR, 30.0), now_s=NOW_S + 2 * HOUR)
    again = report(recorder.store, MODEL, HOUR)
    assert (again.run_id, again.new_windows) == (first.run_id, {1: 1})
    points = history(child(again, 1).info.run_id, "online/return_mean")
    assert [value for _, value, _ in points] == [10.0, 30.0]
    assert len(mlflow.search_runs([registered], output_format="list")) == 3  # training, the model and its version


def test_a_window_is_logged_when_it_has_been_over_for_five_minutes_at_the_compaction(recorder):
    recorder.record((1, 0.5 * HOUR, 10.0), now_s=NOW_S + 299)
    reported = report(recorder.store, MODEL, HOUR)
    assert reported.new_windows == {1: 0}
    assert reported.online.totals[1].episodes == 1
    recorder.compact(NOW_S + 300)
    assert report(recorder.store, MODEL, HOUR).new_windows == {1: 1}


def test_the_versions_have_the_figures_of_all_their_episodes_as_tags(recorder):
    recorder.record((1, 3 * HOUR, 10.0), (1, 0.1 * HOUR, 20.5), (3, 0.1 * HOUR, -2.0))
    report(recorder.store, MODEL, HOUR)
    tags = {each: mlflow.MlflowClient().get_model_version(MODEL, str(each)).tags for each in (1, 2, 3)}
    assert tags[1] == {"online.return": "15.25", "online.episodes": "2"}
    assert tags[2] == {}
    assert tags[3] == {"online.return": "-2", "online.episodes": "1"}


def test_the_registered_model_leads_to_the_run_with_the_chart(recorder, registered):
    recorder.record((1, 2 * HOUR, 10.0))
    reported = report(recorder.store, MODEL, HOUR)
    client = mlflow.MlflowClient()
    assert reported.experiment_id == registered  # the experiment of the training
    run = client.get_run(reported.run_id)
    assert (run.info.run_name, run.info.status) == (f"online return of {MODEL}", "FINISHED")
    assert [each.path for each in client.list_artifacts(reported.run_id)] == ["online_return.png"]
    description = client.get_registered_model(MODEL).description
    assert description.startswith(f"What a person wrote.\n\n{BEGIN}")
    assert f"(#/experiments/{registered}/runs/{reported.run_id})" in description


def test_the_chart_is_drawn_again_only_for_other_episodes(recorder):
    recorder.record((1, 2 * HOUR, 10.0))
    reported = report(recorder.store, MODEL, HOUR)
    client = mlflow.MlflowClient()
    client.delete_model_version_tag(MODEL, "1", "online.return")
    report(recorder.store, MODEL, HOUR)
    assert "online.return" not in client.get_model_version(MODEL, "1").tags
    recorder.record((1, 1 * HOUR, 30.0))
    assert report(recorder.store, MODEL, HOUR).run_id == reported.run_id
    assert client.get_model_version(MODEL, "1").tags["online.return"] == "20"


def test_a_run_that_a_person_deleted_is_made_anew_with_all_windows(recorder):
    recorder.record((1, 2 * HOUR, 10.0))
    first = report(recorder.store, MODEL, HOUR)
    mlflow.delete_run(first.run_id)
    second = report(recorder.store, MODEL, HOUR)
    assert second.run_id != first.run_id
    assert second.new_windows == {1: 1}
    assert second.run_id in mlflow.MlflowClient().get_registered_model(MODEL).description
    assert first.run_id not in mlflow.MlflowClient().get_registered_model(MODEL).description


def test_versions_that_were_deleted_are_named_and_left_out(recorder):
    recorder.record((1, 2 * HOUR, 10.0), (2, 2 * HOUR, 10.0))
    mlflow.MlflowClient().delete_model_version(MODEL, "1")
    reported = report(recorder.store, MODEL, HOUR)
    assert reported.unregistered == [1]
    assert reported.new_windows == {2: 1}


def test_many_windows_are_logged_in_several_requests(recorder, monkeypatch):
    monkeypatch.setattr("pipeline.experience.online.report._BATCH", 2)
    recorder.record(*((1, (number + 2) * HOUR, float(number)) for number in range(5)))
    reported = report(recorder.store, MODEL, HOUR)
    points = history(child(reported, 1).info.run_id, "online/return_mean")
    assert [value for _, value, _ in points] == [4.0, 3.0, 2.0, 1.0, 0.0]


def test_what_was_logged_before_an_interruption_is_not_logged_twice(recorder):
    recorder.record((1, 3 * HOUR, 10.0), (1, 2 * HOUR, 20.0))
    reported = report(recorder.store, MODEL, HOUR)
    run_id = child(reported, 1).info.run_id
    mlflow.MlflowClient().delete_tag(run_id, "online.until")  # the process died after the metrics, before the tag
    assert report(recorder.store, MODEL, HOUR).new_windows == {1: 2}
    assert len(history(run_id, "online/return_mean")) == 2


def test_without_whole_episodes_there_is_nothing_to_report(recorder):
    with pytest.raises(NotCompacted):
        report(recorder.store, MODEL, HOUR)


def test_a_model_that_is_not_registered_is_one_line(recorder):
    recorder.record((1, 2 * HOUR, 10.0))
    mlflow.MlflowClient().delete_registered_model(MODEL)
    with pytest.raises(ModelNotRegistered, match="no registered model 'cartpole-ppo' at sqlite:///"):
        report(recorder.store, MODEL, HOUR)
