"""A training run is tracked, interrupted, resumed and registered in one MLflow run."""

import dataclasses
import json
import signal
import sys

import gymnasium
import mlflow
import pytest
from click.testing import CliRunner
from gymnasium.envs.classic_control import CartPoleEnv
from mlflow.artifacts import load_text

from pipeline.cli import cli
from pipeline.config import TrainConfig
from pipeline.errors import Interrupted
from pipeline.rllib.ray_session import RaySession
from pipeline.signals import interruptible
from pipeline.tracking.errors import NoCheckpoint
from pipeline.training import run as training_run
from pipeline.training.worker_process import WorkerProcess
from tests.zoo import drawing, vector_forms


class Corridor(CartPoleEnv):
    """An environment whose rewards are its keyword argument."""

    def __init__(self, size=3, render_mode=None):
        super().__init__(render_mode=render_mode)
        self.size = size

    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, float(self.size), terminated, truncated, info


#: A training of two iterations.
CONFIG = TrainConfig(
    env_id="Corridor-v0",
    env_kwargs='{"size": 8}',
    target_return=100,
    max_env_steps=256,
    train_batch_size_per_learner=128,
    minibatch_size=64,
    num_epochs=1,
    evaluation_interval=128,
    evaluation_episodes=2,
    num_envs_per_env_runner=2,
)


@pytest.fixture
def _corridor():
    gymnasium.register("Corridor-v0", Corridor, max_episode_steps=10)
    yield
    del gymnasium.registry["Corridor-v0"]


class Progress:
    """Keeps the messages of a run; a signal arrives with the first iteration if it `interrupts`."""

    def __init__(self, *, interrupts=False):
        self.messages, self._interrupts = [], interrupts

    def budget(self, max_env_steps, env_steps):
        self.messages.append(f"{env_steps} of {max_env_steps}")

    def stage(self, message):
        self.messages.append(message)

    note = stage

    def iteration(self, iteration):  # noqa: ARG002
        if self._interrupts:
            signal.raise_signal(signal.SIGINT)

    def evaluated(self, env_steps, result):
        pass


def train(progress):
    with interruptible(), RaySession(None) as ray, WorkerProcess() as worker:
        return training_run.train(CONFIG, progress, ray, worker)


def resume(run_id, progress):
    with interruptible(), RaySession(None) as ray, WorkerProcess() as worker:
        return training_run.resume(run_id, progress, ray, worker)


@pytest.mark.e2e
@pytest.mark.usefixtures("store", "_corridor")
def test_an_interrupted_run_is_killed_and_registers_nothing_and_resuming_finishes_it():
    progress = Progress(interrupts=True)
    with pytest.raises(Interrupted, match="SIGINT"):
        train(progress)
    (run,) = mlflow.search_runs(["0"], output_format="list")
    run_id = run.info.run_id
    assert run.info.status == "KILLED"
    assert progress.messages[-1] == f"To resume: python -m pipeline train --resume {run_id}"
    assert not mlflow.search_registered_models()

    progress = Progress()
    trained = resume(run_id, progress)
    assert trained.run_id == run_id
    assert "128 of 256" in progress.messages, "one iteration was done"
    assert mlflow.get_run(run_id).info.status == "FINISHED"
    (version,) = mlflow.search_model_versions(filter_string="name='cartpole-ppo'")
    assert (int(version.version), version.run_id) == (trained.version, run_id)
    assert not trained.solved
    assert_env_kwargs_are_everywhere(mlflow.get_run(run_id), version)


def assert_env_kwargs_are_everywhere(run, version):
    """Assert that training, its evaluation, the bundle and `evaluate` made the environment with the same arguments."""
    assert run.data.params["env_kwargs"] == version.tags["env_kwargs"] == run.data.tags["env_kwargs"] == '{"size": 8}'
    assert run.data.metrics["train/return_mean_100"] > 30, "the training environments have another size"
    assert float(version.tags["evaluation.return_min"]) % 8 == 0
    model = mlflow.get_logged_model(version.source.removeprefix("models:/"))
    assert json.loads(load_text(f"{model.artifact_location}/policy.json"))["environment"]["kwargs"] == {"size": 8}
    done = CliRunner().invoke(cli, ["evaluate", "models:/cartpole-ppo/1", "--episodes", "2"])
    assert done.exit_code == 0, done.output
    evaluated = mlflow.MlflowClient().get_model_version("cartpole-ppo", "1")
    assert (evaluated.tags["evaluation.episodes"], float(evaluated.tags["evaluation.return_min"]) % 8) == ("2", 0)


class Troubles(drawing.RenderNone):
    """Its episodes do not end, it draws nothing, and its vectorized form resets in the wrong step."""

    def step(self, action):
        observation, reward, *_ = super().step(action)
        return observation, reward, False, False, {}


@pytest.mark.e2e
@pytest.mark.usefixtures("store")
def test_an_environment_with_several_troubles_is_trained_and_a_line_names_each(monkeypatch):
    monkeypatch.delitem(gymnasium.registry, "Troubles-v0")  # registered by its class
    gymnasium.register("Troubles-v0", Troubles, vector_entry_point=vector_forms.SameStep.vector)
    changes = {"env_id": "Troubles-v0", "env_kwargs": "{}", "max_env_steps": 128, "max_episode_steps": 30}
    monkeypatch.setattr(sys.modules[__name__], "CONFIG", dataclasses.replace(CONFIG, **changes))
    progress = Progress()
    assert train(progress).version == 1
    for line in (
        "Environments are stepped one by one, because the vectorized form of Troubles-v0 declares the autoreset mode",
        "2 of 2 episodes did not end and were cut after 30 steps",
        "No recording of an episode: render() returned NoneType",
    ):
        assert sum(message.startswith(line) for message in progress.messages) == 1, line


@pytest.mark.usefixtures("store", "_corridor")
def test_a_run_without_a_checkpoint_is_not_resumed():
    with mlflow.start_run() as run:
        mlflow.log_dict(dict(CONFIG.as_params()), "config.yaml")
        mlflow.end_run("FAILED")
    with pytest.raises(NoCheckpoint):
        resume(run.info.run_id, Progress())
