"""Untrained policies, built by RLlib as training builds them, and an MLflow store to put them in."""

import shutil

import mlflow
import pytest

from pipeline.config import TrainConfig
from pipeline.environments import make as environments


@pytest.fixture(scope="session")
def cartpole():
    return environments.describe("CartPole-v1")


@pytest.fixture(scope="session")
def pendulum():
    return environments.describe("Pendulum-v1")


@pytest.fixture(scope="session")
def build_module():
    """Environment, and settings -> a module with random weights."""
    import torch

    from pipeline.networks import module_spec as networks

    def build(environment, **settings):
        torch.manual_seed(0)
        return networks.untrained(TrainConfig(**settings), environment)

    return build


@pytest.fixture(scope="session")
def build_policy(build_module):
    """Environment, and settings -> a policy with random weights."""
    from pipeline.export.exportable_policy import ExportablePolicy

    def build(environment, **settings):
        module = build_module(environment, **settings)
        spaces = environment.observation_space, environment.action_space
        return ExportablePolicy(module, *spaces, with_values=settings.get("value_estimates", False))

    return build


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A fresh `mlflow.db`: MLflow takes a second or more to make one."""
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def store(tmp_path, monkeypatch, empty_database):
    """An MLflow store of its own, in the working directory."""
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield tmp_path
    mlflow.set_tracking_uri(before)
