"""Fixtures: untrained policies, built by RLlib as training builds them, and an MLflow store of the test."""

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
    """Return a function of an environment and settings that returns a module with random weights."""
    import torch

    from pipeline.networks import module_spec

    def build(environment, **settings):
        torch.manual_seed(0)
        return module_spec.untrained(TrainConfig(**settings), environment)

    return build


@pytest.fixture(scope="session")
def build_policy(build_module):
    """Return a function of an environment and settings that returns a policy with random weights."""
    from pipeline.export.exportable_policy import ExportablePolicy

    def build(environment, **settings):
        module = build_module(environment, **settings)
        spaces = environment.observation_space, environment.action_space
        return ExportablePolicy(module, *spaces, with_values=settings.get("value_estimates", False))

    return build


@pytest.fixture(scope="session")
def save_checkpoint():
    """Return a function of a module and a directory that writes what export reads of an RLlib checkpoint."""

    def save(module, directory):
        module.save_to_path(directory / "learner_group/learner/rl_module/default_policy")
        (directory / "env_runner/env_to_module_connector").mkdir(parents=True)

    return save


@pytest.fixture(scope="session")
def _assembled_once(tmp_path_factory, build_module, save_checkpoint, cartpole):
    from pipeline.bundle import assemble as bundle

    directory, module = tmp_path_factory.mktemp("assembled"), build_module(cartpole)
    save_checkpoint(module, directory / "checkpoint")
    bundle.assemble(directory, cartpole)
    return directory, module


@pytest.fixture
def assembled(tmp_path, _assembled_once):
    """The directory of an assembled bundle of CartPole, and the module with random weights that it was made from."""
    directory, module = _assembled_once
    return shutil.copytree(directory, tmp_path / "assembled"), module


@pytest.fixture
def mlflow_store(tmp_path, monkeypatch, new_database):
    """A new MLflow store in the working directory, which is a temporary one."""
    new_database(tmp_path)
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield tmp_path
    mlflow.set_tracking_uri(None)


@pytest.fixture
def store(mlflow_store):
    return mlflow_store
