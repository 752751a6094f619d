"""What MLflow would refuse during or after training is refused before RLlib is loaded, on one line."""

import contextlib
import sqlite3
import subprocess
import sys

import mlflow
import pytest

from pipeline.errors import InvalidConfig
from pipeline.tracking import preconditions
from pipeline.tracking.errors import (
    ExperimentUnusable,
    LoggedModelsUnsupported,
    NotResumable,
    RelativeStore,
    RunNotJoinable,
)
from serving.registry.errors import PackageMissing
from tests.unreliable_proxy import unreliable_proxy


@pytest.mark.usefixtures("store")
def test_a_new_store_and_a_new_experiment_are_fine(monkeypatch):
    preconditions.check("cartpole-ppo", {"lr": 0.1})
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "new")
    preconditions.check("cartpole-ppo", {"lr": 0.1})
    assert mlflow.get_experiment_by_name("new") is None


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("name", "reason"), [(".", "would resolve to '.'"), (" ", "Missing value")])
def test_names_that_mlflow_does_not_accept(name, reason):
    with pytest.raises(InvalidConfig, match=rf"registered_model_name is '{name}', expected a name that.*{reason}"):
        preconditions.check(name, {})


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("MLFLOW_EXPERIMENT_ID", "999", "'999': there is none with this id"),
        ("MLFLOW_EXPERIMENT_ID", "text", "'text': there is none with this id"),
        ("MLFLOW_EXPERIMENT_NAME", "gone", "'gone': it is deleted. Restore it: mlflow experiments restore -x 1"),
        ("MLFLOW_EXPERIMENT_NAME", "", "'': its name has 0 characters"),
        ("MLFLOW_EXPERIMENT_NAME", "x" * 501, "its name has 501 characters, of at most 500"),
    ],
)
def test_experiments_in_which_no_run_can_start(monkeypatch, variable, value, reason):
    mlflow.delete_experiment(mlflow.create_experiment("gone"))
    monkeypatch.setenv(variable, value)
    with pytest.raises(ExperimentUnusable) as caught:
        preconditions.check("cartpole-ppo", {})
    assert reason in str(caught.value)


@pytest.mark.usefixtures("store")
def test_the_run_of_the_variable_is_checked(monkeypatch):
    client = mlflow.MlflowClient()
    parent = client.create_run("0").info.run_id
    client.log_param(parent, "lr", "0.1")
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    preconditions.check("cartpole-ppo", {"lr": 0.1})
    with pytest.raises(RunNotJoinable, match=r"has lr=0\.1 instead of 0\.2"):
        preconditions.check("cartpole-ppo", {"lr": 0.2})
    with pytest.raises(NotResumable, match="there is no such run"):
        preconditions.check_resumable("0" * 32, "config.yaml")


def test_a_relative_file_of_mlflow_run_is_refused_before_another_one_is_created(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    mlflow.set_tracking_uri("sqlite:///elsewhere.db")
    with pytest.raises(RelativeStore):
        preconditions.check("cartpole-ppo", {})
    assert not (store / "elsewhere.db").exists()


def test_artifacts_in_an_object_store_need_its_client(store, monkeypatch):
    with contextlib.closing(sqlite3.connect(store / "mlflow.db")) as database, database:
        database.execute("UPDATE experiments SET artifact_location = 's3://bucket/0'")
    monkeypatch.setitem(sys.modules, "boto3", None)
    message = (
        r"the artifact store at s3:// needs the module boto3, which is not installed: pip install 'cartpole-ppo\[s3\]'$"
    )
    with pytest.raises(PackageMissing, match=message):
        preconditions.check("cartpole-ppo", {})


NOT_FOUND = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}'
EXPERIMENT = b'{"experiment": {"experiment_id": "0", "lifecycle_stage": "active", "artifact_location": "/tmp/0"}}'


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("name", "status", "body"), [(None, 200, EXPERIMENT), ("new", 404, NOT_FOUND)])
def test_a_server_without_logged_models(monkeypatch, name, status, body):
    if name is not None:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    with unreliable_proxy("http://127.0.0.1:1") as proxy:
        proxy.fail(status, path="experiments/get", body=body)
        proxy.fail(404, path="logged-models")
        mlflow.set_tracking_uri(proxy.url)
        with pytest.raises(LoggedModelsUnsupported, match=r"Update the server to MLflow 3, or let the gateway"):
            preconditions.check("cartpole-ppo", {})


def test_the_checks_load_neither_rllib_nor_torch():
    script = "import sys, pipeline.tracking.preconditions; print({'ray', 'torch', 'gymnasium'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
