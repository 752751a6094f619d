"""A command is one MLflow run, which ends with the status of the command."""

import contextlib
import signal
import sqlite3

import mlflow
import pytest

from pipeline.errors import Interrupted
from pipeline.evaluation.evaluation import Evaluation
from pipeline.signals import interruptible
from pipeline.tracking import run as tracking
from pipeline.tracking.errors import NotResumable, RelativeStore, RunNotJoinable
from serving.registry.errors import ArtifactsBehindServer


def status(run_id):
    return mlflow.get_run(run_id).info.status


def test_settings_are_not_logged_and_not_read_past_the_server_that_keeps_the_artifacts(store):
    with contextlib.closing(sqlite3.connect(store / "mlflow.db")) as database, database:
        database.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/0'")
    message = "^an MLflow server keeps the artifacts of this store, and MLFLOW_TRACKING_URI does not name it"
    with pytest.raises(ArtifactsBehindServer, match=message), tracking.run("train") as run_id:
        tracking.log_settings(run_id, {"seed": 1}, tracking.CONFIG_FILE)
    assert status(run_id) == "FAILED"
    with pytest.raises(ArtifactsBehindServer, match=message):
        tracking.load(run_id, tracking.CONFIG_FILE)


def run_that_raises(error):
    with pytest.raises(type(error)), tracking.run("train") as run_id:
        raise error
    return run_id


@pytest.mark.usefixtures("store")
def test_a_run_ends_with_the_status_of_its_command():
    with tracking.run("train") as run_id:
        assert status(run_id) == "RUNNING"
    assert status(run_id) == "FINISHED"
    assert status(run_that_raises(ValueError())) == "FAILED"
    with pytest.raises(Interrupted), interruptible(), tracking.run("train") as run_id:
        signal.raise_signal(signal.SIGTERM)
    assert status(run_id) == "KILLED"


@pytest.mark.usefixtures("store")
def test_an_error_after_a_signal_ends_the_run_as_killed():
    with pytest.raises(Interrupted), interruptible(), tracking.run("train") as run_id:
        fail_because_of_a_signal()
    assert status(run_id) == "KILLED"


def fail_because_of_a_signal():
    try:
        signal.raise_signal(signal.SIGTERM)
    except Interrupted:
        raise ImportError from None


@pytest.mark.usefixtures("store")
def test_a_finished_run_is_not_resumed():
    with tracking.run("train") as run_id:
        mlflow.log_dict({"lr": 0.1}, tracking.CONFIG_FILE)
        assert tracking.load(run_id, tracking.CONFIG_FILE) == {"lr": 0.1}
    with pytest.raises(NotResumable, match=r"it finished\. Start from its policy"):
        tracking.load(run_id, tracking.CONFIG_FILE)


@pytest.mark.usefixtures("store")
def test_a_run_of_another_command_is_not_resumed():
    with tracking.run("evaluate") as run_id, pytest.raises(NotResumable, match="so it was not a search"):
        tracking.load(run_id, tracking.SEARCH_FILE)
    with pytest.raises(NotResumable, match="there is no such run"):
        tracking.load("0" * 32, tracking.SEARCH_FILE)


@pytest.mark.usefixtures("store")
def test_a_resumed_run_continues_and_the_parent_names_it(monkeypatch):
    first = run_that_raises(ValueError())
    parent = mlflow.MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    with tracking.run("train", resumed=first) as run_id:
        assert run_id == first
    assert status(first) == "FINISHED"
    assert mlflow.get_run(parent).data.tags["resumed"] == first


@pytest.mark.usefixtures("store")
def test_child_runs_carry_parameters_and_tags():
    with tracking.run("tune") as parent:
        child = tracking.start_child(parent, "trial 1", {"lr": 0.1}, {"trial.number": "1"})
        (found,) = tracking.children(parent)
    assert (found.info.run_id, found.info.run_name) == (child, "trial 1")
    assert found.data.params == {"lr": "0.1"}
    assert found.data.tags["trial.number"] == "1"


@pytest.mark.usefixtures("store")
def test_under_mlflow_run_no_second_run_begins(monkeypatch):
    parent = mlflow.MlflowClient().create_run("0", run_name="project").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    with tracking.run("train") as run_id:
        pass
    assert run_id == parent
    assert mlflow.get_run(parent).info.run_name == "project"
    assert len(mlflow.search_runs(["0"], output_format="list")) == 1


PARAMS = {"lr": 0.003, "seed": 0, "promote": True, "target_return": None, "env_id": "CartPole-v1", "kwargs": "{}"}


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("logged", "ends_as", "reason"),
    [
        ({"lr": "3e-3", "seed": "0.0", "promote": "true", "target_return": "auto", "kwargs": "'{}'"}, None, None),
        ({"lr": "3e-3"}, "FINISHED", "is FINISHED"),
        ({"lr": "3e-3"}, "KILLED", "is KILLED"),
        ({"lr": "0.1"}, None, "has lr=0.1 instead of 0.003"),
        ({"env_id": "Acrobot-v1"}, None, "has env_id=Acrobot-v1 instead of CartPole-v1"),
        ({"target_return": "475"}, None, "has target_return=475 instead of None"),
        ({"promote": "false"}, None, "has promote=false instead of True"),
    ],
    ids=str,
)
def test_only_a_running_run_whose_parameters_agree_is_joined(monkeypatch, logged, ends_as, reason):
    client = mlflow.MlflowClient()
    parent = client.create_run("0").info.run_id
    for name, value in logged.items():
        client.log_param(parent, name, value)
    if ends_as:
        client.set_terminated(parent, ends_as)
    before = status(parent)
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    if reason is None:
        with tracking.run("train", PARAMS) as run_id:
            assert run_id == parent
        assert mlflow.get_run(parent).data.params == {"env_id": "CartPole-v1"} | logged
        return
    with pytest.raises(RunNotJoinable) as caught, tracking.run("train", PARAMS):
        pass
    assert str(caught.value) == (
        f"MLFLOW_RUN_ID names the run {parent}, which {reason}. To start a new run: unset MLFLOW_RUN_ID"
    )
    assert (status(parent), mlflow.get_run(parent).data.params) == (before, logged)


@pytest.mark.usefixtures("store")
def test_a_run_that_does_not_exist_or_is_deleted_is_not_joined(monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(RunNotJoinable, match="does not exist"), tracking.run("train", PARAMS):
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", parent := mlflow.MlflowClient().create_run("0").info.run_id)
    mlflow.delete_run(parent)
    with pytest.raises(RunNotJoinable, match="is deleted"), tracking.run("train", PARAMS):
        pass


@pytest.mark.usefixtures("store")
def test_parameters_that_the_parent_logged_stay_as_it_wrote_them():
    with tracking.run("train") as run_id:
        mlflow.log_param("lr", "3e-3")
        tracking.log_params(run_id, {"lr": 0.003, "seed": 0})
    assert mlflow.get_run(run_id).data.params == {"lr": "3e-3", "seed": "0"}


def test_a_relative_sqlite_uri_that_means_another_file_is_refused(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    mlflow.set_tracking_uri("sqlite:///elsewhere.db")
    with pytest.raises(RelativeStore) as caught, tracking.run("train"):
        pass
    assert str(caught.value) == (
        f"The tracking URI sqlite:///elsewhere.db is relative, and the project runs in {store}, where that file does "
        "not hold this run. Give an absolute one: MLFLOW_TRACKING_URI=sqlite:////absolute/path/to/mlflow.db"
    )
    assert not (store / "elsewhere.db").exists()


def test_a_relative_sqlite_uri_that_means_the_same_file_works(store, monkeypatch):
    parent = mlflow.MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    assert (store / "mlflow.db").exists()
    with tracking.run("train") as run_id:
        assert run_id == parent


@pytest.mark.usefixtures("store")
def test_an_evaluation_is_logged_with_each_return():
    evaluation = Evaluation((1.0, 2.0, 6.0), first_seed=0)
    with tracking.run("evaluate") as run_id:
        tracking.log_evaluation(run_id, evaluation, model_id=None)
    metrics = mlflow.get_run(run_id).data.metrics
    assert metrics["evaluation/return_mean"] == 3.0
    assert metrics["evaluation/return_min"] == 1.0
    history = mlflow.MlflowClient().get_metric_history(run_id, "evaluation/return")
    assert [(metric.step, metric.value) for metric in history] == [(0, 1.0), (1, 2.0), (2, 6.0)]
    assert tracking.version_tags(evaluation)["evaluation.return_mean"] == "3"
