"""A command is one MLflow run, which ends as the command did."""

import mlflow
import pytest

from pipeline.errors import Interrupted
from pipeline.evaluation.evaluation import Evaluation
from pipeline.tracking import run as tracking
from pipeline.tracking.errors import RelativeStore


def status(run_id):
    return mlflow.get_run(run_id).info.status


def run_that_raises(error):
    with pytest.raises(type(error)), tracking.run("train") as run_id:
        raise error
    return run_id


@pytest.mark.usefixtures("store")
def test_a_run_ends_as_its_command_did():
    with tracking.run("train") as run_id:
        assert status(run_id) == "RUNNING"
    assert status(run_id) == "FINISHED"
    assert status(run_that_raises(ValueError())) == "FAILED"
    assert status(run_that_raises(Interrupted("SIGTERM"))) == "KILLED"


@pytest.mark.usefixtures("store")
def test_under_mlflow_run_no_second_run_begins(monkeypatch):
    parent = mlflow.MlflowClient().create_run("0", run_name="project").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    with tracking.run("train") as run_id:
        pass
    assert run_id == parent
    assert mlflow.get_run(parent).info.run_name == "project"
    assert len(mlflow.search_runs(["0"], output_format="list")) == 1


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
