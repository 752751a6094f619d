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
from pipeline.tracking.errors import NoCheckpoint, TrackingRefused
from pipeline.training import run as training_run
from pipeline.training.worker_process import WorkerProcess
from tests.unreliable_proxy import unreliable_proxy
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
    """Keeps the messages of a run; a signal arrives with the first iteration, or in the stage of this message."""

    def __init__(self, interrupts_in=None):
        self.messages, self._interrupts_in = [], interrupts_in

    def budget(self, max_env_steps, env_steps):
        self.messages.append(f"{env_steps} of {max_env_steps}")

    def note(self, message):
        self.messages.append(message)

    def stage(self, message):
        self.messages.append(message)
        if self._interrupts_in is not None and message.startswith(self._interrupts_in):
            signal.raise_signal(signal.SIGINT)

    def iteration(self, iteration):  # noqa: ARG002
        if self._interrupts_in == "iteration":
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
@pytest.mark.parametrize(
    "phase", [pytest.param("Exporting the best policy", marks=pytest.mark.long), "Registering the policy"]
)
def test_a_run_that_is_interrupted_in_any_phase_is_killed_and_registers_nothing_and_resuming_finishes_it(phase):
    progress = Progress(interrupts_in="iteration")
    with pytest.raises(Interrupted, match="SIGINT"):
        train(progress)
    (run,) = mlflow.search_runs(["0"], output_format="list")
    run_id = run.info.run_id
    assert progress.messages[-2:] == how_to_resume(run_id, "128 steps")
    assert mlflow.get_run(run_id).info.status == "KILLED"

    progress = Progress(interrupts_in=phase)
    with pytest.raises(Interrupted, match="SIGINT"):
        resume(run_id, progress)
    assert progress.messages[-2:] == how_to_resume(run_id, "256 steps")
    assert mlflow.get_run(run_id).info.status == "KILLED"
    assert not mlflow.search_registered_models()

    progress = Progress()
    trained = resume(run_id, progress)
    assert trained.run_id == run_id
    assert "256 of 256" in progress.messages, "all iterations were done"
    assert mlflow.get_run(run_id).info.status == "FINISHED"
    (version,) = mlflow.search_model_versions(filter_string="name='cartpole-ppo'")
    assert (int(version.version), version.run_id) == (trained.version, run_id)
    assert not trained.solved
    assert_env_kwargs_are_everywhere(mlflow.get_run(run_id), version)


def how_to_resume(run_id, steps):
    newest = f"The newest checkpoint, of {steps}, is in MLflow"
    return [newest, f"To resume: python -m pipeline train --resume {run_id}"]


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
@pytest.mark.long
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


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.usefixtures("_corridor")
def test_a_policy_that_a_proxy_refuses_is_registered_by_resuming_with_the_checkpoint_that_was_kept(
    tracked_workshop, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    progress = Progress()
    with unreliable_proxy(tracked_workshop.environment["MLFLOW_TRACKING_URI"]) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
        mlflow.set_tracking_uri(proxy.url)
        try:
            proxy.fail(413, methods=["PUT"], over_bytes=20_000)
            with pytest.raises(TrackingRefused, match=r"does not accept the files of the policy \(status 413: "):
                train(progress)
            (kept,) = tmp_path.glob("checkpoint-*.tar")
            run_id = kept.stem.removeprefix("checkpoint-")
            assert mlflow.get_run(run_id).info.status == "FAILED"
            assert progress.messages[-2:] == [
                f"The newest checkpoint, of 256 steps, was not uploaded. Resume where it is: {kept}",
                f"To resume: python -m pipeline train --resume {run_id}",
            ]
            proxy.repair()
            assert resume(run_id, Progress()).run_id == run_id
            assert mlflow.get_run(run_id).info.status == "FINISHED"
        finally:
            mlflow.set_tracking_uri(None)


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.usefixtures("_corridor")
def test_a_training_outlasts_a_database_that_is_away(tracked_workshop, tmp_path, monkeypatch):
    """The server is up; its API fails from the first iteration until the registration is under way."""
    monkeypatch.chdir(tmp_path)
    with unreliable_proxy(tracked_workshop.environment["MLFLOW_TRACKING_URI"]) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
        mlflow.set_tracking_uri(proxy.url)

        class Failing(Progress):
            def iteration(self, iteration):
                super().iteration(iteration)
                self.fault = proxy.fail(503, path="/api/", times=8)

        progress = Failing()
        try:
            trained = train(progress)
            assert progress.fault.times == 0
            assert mlflow.get_run(trained.run_id).info.status == "FINISHED"
        finally:
            mlflow.set_tracking_uri(None)
    outage = "The tracking server answers with errors (status 503); metrics and files wait in memory."
    assert outage in progress.messages
