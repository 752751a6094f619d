import json

import mlflow
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from serving.experience.journal.records import DIGESTS, OMITTED
from tests.pipeline.experience.recording import MODEL


@pytest.fixture
def drift(recorder, monkeypatch):
    """Return a function that runs `drift`, and returns its exit status and its lines without those of progress."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*options):
        result = CliRunner().invoke(cli, ["drift", str(recorder.store.uri), *options])
        lines = [" ".join(line.split()) for line in result.output.splitlines()]
        return result.exit_code, [line for line in lines if line and not line.startswith("[")]

    return run


def drift_run():
    (run,) = [each for each in mlflow.MlflowClient().search_runs(["0"]) if "drift.version" in each.data.tags]
    return run


def test_without_a_change_the_status_is_0_and_the_metric_is_below_1(register, recorder, drift, tmp_path):
    register()
    recorder.record(30)
    status, lines = drift("--metrics-file", str(tmp_path / "drift.prom"))
    assert status == 0
    assert lines[0].startswith(f"Version 1 of '{MODEL}': 30 live episodes from 2027-01-15 07:43 to 2027-01-15 07:43;")
    assert lines[0].endswith("reference of 60 episodes.")
    assert lines[1] == "dimension steps mean live mean PSI/threshold distance/threshold"
    assert len(lines) == 2 + 8 + 2
    assert lines[-2].startswith("No drift at alpha 0.001 (p 0.")
    *comments, sample = (tmp_path / "drift.prom").read_text().splitlines()
    assert [each.split()[:3] for each in comments] == [
        ["#", "HELP", "ray_policy_drift"],
        ["#", "TYPE", "ray_policy_drift"],
    ]
    name, value = sample.split(" ")
    assert name == f'ray_policy_drift{{model="{MODEL}",version="1"}}'
    assert 0 < float(value) < 1
    assert (tmp_path / "drift.prom").stat().st_mode & 0o777 == 0o644
    assert not list(tmp_path.glob(".drift*"))


def test_a_shifted_sensor_alarms_with_status_3_and_is_logged_at_the_version(register, recorder, drift, tmp_path):
    register()
    recorder.record(30, shift=2.0)
    status, lines = drift("--metrics-file", str(tmp_path / "drift.prom"))
    assert status == 3
    assert lines[2].startswith("1 all ")
    assert lines[2].endswith(" alarm")
    assert lines[-2].startswith("Alarm: the observations have drifted in 1 of 4 dimensions (p 5e-05, alpha 0.001).")
    run = drift_run()
    assert lines[-1] == f"Logged in run {run.info.run_id}: in MLflow 'drift of {MODEL} version 1'."
    assert float((tmp_path / "drift.prom").read_text().split()[-1]) == pytest.approx(
        run.data.metrics["drift/ratio"], rel=1e-5
    )
    assert run.data.metrics["drift/alarm"] == 1
    client = mlflow.MlflowClient()
    assert {each.path for each in client.list_artifacts(run.info.run_id)} == {"drift.json", "drift.png"}
    content = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/drift.json"))
    assert content["alarm"] is True
    assert content["dimensions"][0]["dimension"] == "1"
    model_id = client.get_model_version(MODEL, "1").source.removeprefix("models:/")
    assert {each.key for each in mlflow.get_logged_model(model_id).metrics} >= {"drift/ratio", "drift/alarm"}
    assert [each.model_id for each in client.get_run(run.info.run_id).inputs.model_inputs] == [model_id]


def test_a_repeated_measurement_adds_nothing_and_a_new_one_adds_a_point(register, recorder, drift):
    register()
    recorder.record(30)
    drift()
    drift()
    recorder.record(30, hours_ago=-0.1)
    drift()
    run = drift_run()
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "drift/episodes")
    assert [each.value for each in history] == [30, 60]


def test_only_the_newest_episodes_within_the_window_count(register, recorder, drift):
    register()
    recorder.record(40, hours_ago=50, shift=3.0)
    recorder.record(30)
    assert drift()[0] == 3
    assert drift("--episodes", "30")[0] == 0
    status, lines = drift("--window-hours", "24")
    assert status == 0
    assert ": 30 live episodes from " in lines[0]


def test_sampled_mixed_and_incomplete_episodes_are_left_out(register, recorder, drift):
    register()
    recorder.record(30, explored=(0, 1), mixed=(2, 3, 4), lost=(5,), shift=0.0)
    status, lines = drift("--version", "1")
    assert status == 0
    assert (
        ": 24 live episodes from 2027-01-15 07:43 to 2027-01-15 07:43 "
        "(left out: 3 with several versions, 1 with missing decisions, 2 with sampled actions);"
    ) in lines[0]


def test_episodes_that_were_cut_are_left_out_where_clients_report_ends(register, recorder, drift):
    register()
    recorder.record(60, cut=range(30), hours_ago=2)
    status, lines = drift()
    assert status == 0
    assert ": 30 live episodes from " in lines[0]
    assert " (left out: 30 with no reported end); " in lines[0]


def test_without_any_reported_end_all_episodes_count(register, recorder, drift):
    register()
    recorder.record(30, cut=range(30), hours_ago=2)
    assert ": 30 live episodes from " in drift()[1][0]


@pytest.mark.parametrize(
    ("recorded", "options", "expected"),
    [
        (
            {"count": 2, "explored": (0, 1)},
            (),
            "Greedy whole episodes of version 1: 0 (left out: 2 with sampled action",
        ),
        (
            {"count": 1},
            (),
            "Greedy whole episodes of version 1: 1. That is too few to find a difference at alpha 0.001",
        ),
        ({"count": 3, "flags": OMITTED}, (), "has no observations. Start the server with --experience-observations"),
        ({"count": 3, "flags": DIGESTS}, (), "has no observations. Start the server with --experience-observations"),
        ({"count": 3}, ("--version", "7"), "There are no whole episodes of version 7 of 'cartpole-ppo'; there are of"),
        ({"count": 30}, ("--metrics-file", "/nowhere/x.prom"), "/nowhere/x.prom cannot be written: No such file"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(register, recorder, drift, recorded, options, expected):
    register()
    recorder.record(**recorded)
    status, lines = drift(*options)
    assert status == 1
    assert lines[-1].startswith("Error: ")
    assert expected in lines[-1]


def test_a_metrics_file_that_node_exporter_would_not_read_is_refused(recorder, drift):
    recorder.record(3)
    status, lines = drift("--metrics-file", "drift.txt")
    assert status == 2
    assert "'drift.txt' does not end with .prom" in lines[-1]


def test_a_version_of_an_earlier_release_has_no_reference(register, recorder, drift):
    assert register(episodes=0) == 1
    recorder.record(5)
    status, lines = drift()
    assert status == 1
    assert lines[-1].startswith("Error: Version 1 of 'cartpole-ppo' has no reference.json, because an earlier release")
    assert "Pass --play 100 to play that many episodes in its environment for the comparison." in lines[-1]


def test_episodes_that_are_played_replace_a_reference(register, recorder, drift):
    register(episodes=0)
    recorder.record(30)
    status, lines = drift("--play", "20")
    assert status == 3  # what was recorded are no observations of CartPole
    assert lines[0].endswith("reference of 20 episodes.")


def test_a_reference_that_was_changed_in_the_store_is_refused(register, recorder, drift, tmp_path):
    register()
    recorder.record(5)
    (stored,) = (tmp_path / "mlruns").rglob("reference.json")
    stored.write_text("{}")
    status, lines = drift()
    assert status == 1
    assert "reference.json of version 1 of 'cartpole-ppo' does not have the sha256 that was registered." in lines[-1]
    stored.unlink()
    assert "reference.json of version 1 of 'cartpole-ppo' cannot be downloaded: " in drift()[1][-1]
