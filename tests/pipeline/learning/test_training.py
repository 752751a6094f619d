"""Policies learn from recorded episodes of CartPole, and their versions say from which."""

import json
import signal

import mlflow
import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.errors import Interrupted
from pipeline.learning.course import LearningCourse
from pipeline.learning.errors import ExperienceOutdated
from pipeline.learning.recorded import Recorded
from pipeline.learning.settings import LearningSettings
from pipeline.rllib.ray_session import RaySession
from pipeline.signals import interruptible
from pipeline.training import run as training_run
from pipeline.training.worker_process import WorkerProcess
from tests.pipeline.learning.playing import cartpole_logs
from tests.pipeline.training.test_run import Progress

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.usefixtures("store")]

SMALL = TrainConfig(evaluation_episodes=2, minibatch_size=64, max_env_steps=2048, train_batch_size_per_learner=1024)


def train(uri, progress=None, config=SMALL, **settings):
    """Train as the command does."""
    learning = LearningSettings(str(uri), **settings)
    recorded = Recorded.read(learning, environments.of_config(config))
    course = LearningCourse(learning, recorded.facts, recorded)
    with interruptible(), RaySession(None) as ray, WorkerProcess() as worker:
        return training_run.train(config, progress or Progress(), ray, worker, course=course)


def resume(run_id, progress):
    with interruptible(), RaySession(None) as ray, WorkerProcess() as worker:
        return training_run.resume(run_id, progress, ray, worker, course=LearningCourse.of_run(run_id))


def digests_of(trained):
    """The digests of a version's files."""
    version = mlflow.MlflowClient().get_model_version(trained.name, str(trained.version))
    return {name: value for name, value in version.tags.items() if name == "sha256.model.onnx"}


def test_an_interrupted_training_is_resumed_to_the_version_that_it_would_have_given(tmp_path):
    uri = tmp_path / "experience"
    episodes, mean = cartpole_logs(uri, (0.9,), 12)
    settings = {"epochs": 4, "epochs_per_evaluation": 2}
    with pytest.raises(Interrupted, match="SIGINT"):
        train(uri, Progress(interrupts_in="iteration"), **settings)
    (run,) = mlflow.search_runs(["0"], output_format="list")
    assert run.info.status == "KILLED"
    resumed = resume(run.info.run_id, Progress())
    assert resumed.run_id == run.info.run_id
    assert digests_of(resumed) == digests_of(train(uri, **settings))
    assert_lineage(resumed, episodes, mean)


def assert_lineage(trained, episodes, mean):
    """The run has the episodes as input; the version and its card name them."""
    run = mlflow.get_run(trained.run_id)
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.digest == episodes.digest
    assert json.loads(used.dataset.profile)["episodes"] == 12
    assert run.data.metrics["experience/return_mean"] == pytest.approx(mean)
    assert run.data.params["algorithm"] == "marwil"
    version = mlflow.MlflowClient().get_model_version(trained.name, str(trained.version))
    for tags in (run.data.tags, version.tags):
        assert {name: tags[name] for name in ("experience.digest", "experience.versions", "algorithm")} == {
            "experience.digest": episodes.digest,
            "experience.versions": "1",
            "algorithm": "marwil",
        }
    assert version.description.startswith("MARWIL policy for **CartPole-v1**")
    assert f"on 12 recorded episodes ({int(12 * mean):,} steps) of version 1 of `cartpole-ppo`" in version.description
    assert f"digest `{episodes.digest}`" in version.description


def test_ppo_continues_from_what_was_learned_and_is_resumed_without_the_episodes(tmp_path):
    cartpole_logs(tmp_path / "experience", (0.9,), 12)

    class InPPO(Progress):
        """A signal arrives in the first iteration of PPO."""

        def iteration(self, iteration):
            if "train/entropy" in iteration.metrics:
                signal.raise_signal(signal.SIGINT)

    progress = InPPO()
    with pytest.raises(Interrupted, match="SIGINT"):
        train(tmp_path / "experience", progress, then="ppo", epochs=2, epochs_per_evaluation=1)
    (run,) = mlflow.search_runs(["0"], output_format="list")
    (tmp_path / "experience").rename(tmp_path / "gone")
    trained = resume(run.info.run_id, Progress())
    assert mlflow.get_run(trained.run_id).data.params["then"] == "ppo"
    version = mlflow.MlflowClient().get_model_version(trained.name, str(trained.version))
    assert version.tags["algorithm"] == "marwil+ppo"
    assert version.description.startswith("MARWIL, then PPO policy for **CartPole-v1**")


def test_a_training_is_not_resumed_with_other_episodes(tmp_path):
    cartpole_logs(tmp_path / "experience", (0.9,), 12)
    with pytest.raises(Interrupted):
        train(tmp_path / "experience", Progress(interrupts_in="iteration"))
    (run,) = mlflow.search_runs(["0"], output_format="list")
    (tmp_path / "experience").rename(tmp_path / "earlier")
    cartpole_logs(tmp_path / "experience", (0.8,), 12)
    with pytest.raises(ExperienceOutdated, match="because they were compacted again"):
        resume(run.info.run_id, Progress())


def test_marwil_beats_the_mean_return_of_mixed_logs_and_equal_seeds_give_equal_versions(tmp_path):
    uri = tmp_path / "experience"
    _, mean = cartpole_logs(uri, (0.95, 0.8, 0.6), 60)
    config = TrainConfig()
    first, second = train(uri, config=config), train(uri, config=config)
    assert first.evaluation.mean > 1.5 * mean, (first.evaluation, mean)
    assert digests_of(first) == digests_of(second)


def test_cloning_a_perfect_policy_from_100_episodes_is_nearly_perfect(tmp_path):
    _, mean = cartpole_logs(tmp_path / "experience", (0.0,), 100)
    assert mean == 500
    trained = train(tmp_path / "experience", config=TrainConfig(), algorithm="bc")
    assert trained.evaluation.mean >= 475


def test_the_settings_of_the_policy_of_from_are_those_of_the_training(tmp_path):
    """Its network and its observation filter are not given again, and its weights are where learning starts."""
    uri = tmp_path / "experience"
    cartpole_logs(uri, (0.9,), 12)
    options = ("--fcnet-hiddens", "16", "--observation-filter", "mean-std", "--max-env-steps", "2048")
    done = CliRunner().invoke(cli, ["train", *options, "--evaluation-episodes", "2"])
    assert done.exit_code == 0, done.output
    learning = ("--experience", str(uri), "--from", "models:/cartpole-ppo/1", "--epochs", "1", "--algorithm", "bc")
    done = CliRunner().invoke(cli, ["train", *learning])
    assert done.exit_code == 0, done.output
    version = mlflow.MlflowClient().get_model_version("cartpole-ppo", "2")
    params = mlflow.get_run(version.run_id).data.params
    assert (params["fcnet_hiddens"], params["observation_filter"]) == ("16", "mean-std")
    assert (version.tags["from"], version.tags["algorithm"]) == ("models:/cartpole-ppo/1", "bc")
    done = CliRunner().invoke(cli, ["verify", "models:/cartpole-ppo/2"])
    assert done.exit_code == 0, done.output
