"""Untrained policies, built by RLlib as training builds them, and an MLflow store to put them in."""

import shutil

import mlflow
import pytest
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from pipeline import environments


@pytest.fixture(scope="session")
def cartpole():
    return environments.describe("CartPole-v1")


@pytest.fixture(scope="session")
def pendulum():
    return environments.describe("Pendulum-v1")


@pytest.fixture(scope="session")
def build_module():
    """Environment -> a module with random weights."""
    import torch
    from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule

    def build(environment):
        torch.manual_seed(0)
        model_config = DefaultModelConfig(fcnet_hiddens=[64, 64], vf_share_layers=False)
        return RLModuleSpec(
            DefaultPPOTorchRLModule, environment.observation_space, environment.action_space, model_config=model_config
        ).build()

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
