"""Training that is killed, interrupted and resumed is one run; training can start from a registered policy."""

import itertools
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from pipeline.cli import cli
from serving.policy.bundle import Bundle
from serving.policy.policy import Policy
from tests.workshop import Workshop, await_true

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def await_checkpoint(client: MlflowClient) -> None:
    """Wait until the only run has a complete checkpoint, one with a manifest."""
    (run,) = client.search_runs(["0"])
    await_true(
        lambda: any(file.path.endswith(".json") for file in client.list_artifacts(run.info.run_id, "checkpoints")),
        "a checkpoint is uploaded",
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    shop = Workshop(tmp_path_factory.mktemp("resumed"))
    yield shop
    shop.end()


@pytest.fixture(scope="module")
def client(shop):
    return shop.client()


@pytest.fixture(scope="module")
def run_id(shop, client):
    """A run that was killed after two evaluations, and resumed to the end."""
    command = (sys.executable, "-m", "pipeline", "train")
    process = shop.start(*command, "--checkpoint-interval-s", "0.5", "--evaluation-interval", "2048")
    await_true(lambda: shop.output().count("greedy return ") > 2, "training is under way", 180)
    await_checkpoint(client)
    process.kill()
    for each in shop.processes():
        each.kill()
    await_true(lambda: not shop.processes(), "every process has ended", 180)
    (run,) = client.search_runs(["0"])
    run_id = run.info.run_id
    assert run.info.status == "RUNNING"
    done = shop.invoke(cli, "train", "--resume", run_id)
    assert done.exit_code == 0, done.output
    return run_id


def history(client, run_id, name):
    return client.get_metric_history(run_id, name)


def test_a_resumed_run_is_the_same_run_and_registers_once(client, run_id):
    (run,) = client.search_runs(["0"])
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    (version,) = client.search_model_versions("name='cartpole-ppo'")
    assert version.run_id == run_id
    assert float(version.tags["evaluation.return_min"]) == 500


def test_counters_optimizer_and_schedule_continue(client, run_id):
    """The learning rate falls with the environment steps, and never returns to its initial value."""
    rates = sorted((metric.step, metric.value) for metric in history(client, run_id, "train/learning_rate"))
    for (step, rate), (later_step, later_rate) in itertools.pairwise(rates):
        assert later_step - step < 1100
        assert later_rate <= rate or later_step == step


def test_the_checkpoints_are_bounded(client, run_id):
    assert len(client.list_artifacts(run_id, "checkpoints")) == 4


def test_a_run_that_finished_is_not_resumed(shop, run_id):
    done = shop.invoke(cli, "train", "--resume", run_id)
    assert done.exit_code == 1
    assert f"Run {run_id} cannot be resumed: it finished." in done.stderr


def test_the_version_has_its_provenance(client, run_id):
    version = client.get_model_version("cartpole-ppo", "1")
    for tag in ("git_commit", "env_id", "env_kwargs", "package.ray", "package.torch"):
        assert version.tags[tag] == client.get_run(run_id).data.tags[tag]
    assert "greedy return **500.0** over 100 episodes" in version.description
    assert run_id in version.description


def test_figures_and_a_recording_are_artifacts(client, run_id, tmp_path):
    assert [each.path for each in client.list_artifacts(run_id, "figures")] == [
        "figures/evaluation_returns.png",
        "figures/learning_curve.png",
    ]
    recording = Path(client.download_artifacts(run_id, "episode.gif", str(tmp_path)))
    assert recording.read_bytes()[:6] == b"GIF89a"


def test_training_starts_from_a_registered_policy(shop, client, run_id):
    unchanged = ("--lr", "1e-12", "--lr-final", "1e-12", "--patience", "1")
    done = shop.invoke(cli, "train", "--from", "models:/cartpole-ppo/1", *unchanged)
    assert done.exit_code == 0, done.output
    version = client.get_model_version("cartpole-ppo", "2")
    run = client.get_run(version.run_id)
    assert version.tags["from"] == run.data.tags["from"] == "models:/cartpole-ppo/1"
    assert "starting from `models:/cartpole-ppo/1`" in version.description
    assert [each.model_id for each in run.inputs.model_inputs] == [model_id(client, "cartpole-ppo")]
    before, after = (history(client, each, "evaluation/greedy_return_mean") for each in (run_id, version.run_id))
    # Weights that differ by 1e-12 can balance the pole a few steps longer in one of the 100 episodes.
    assert after[0].value == pytest.approx(max(point.value for point in before), abs=0.5)
    assert version.run_id != run_id


@pytest.mark.usefixtures("run_id")
def test_a_policy_of_other_spaces_is_rejected_with_the_difference(shop):
    done = shop.invoke(cli, "train", "--from", "models:/cartpole-ppo/1", "--env-id", "Acrobot-v1")
    assert done.exit_code == 1
    assert re.search(r"its observation space is Box\(.*\(4,\).*\), that of Acrobot-v1 is Box\(.*\(6,\)", done.stderr)


@pytest.mark.usefixtures("run_id")
def test_a_policy_of_another_network_is_rejected(shop):
    done = shop.invoke(cli, "train", "--from", "models:/cartpole-ppo/1", "--fcnet-hiddens", "32")
    assert done.exit_code == 1
    assert "Training cannot start from models:/cartpole-ppo/1: its network has another shape." in done.stderr


@pytest.mark.long
def test_the_same_seed_gives_the_same_metrics_and_the_same_actions(shop, client):
    versions = []
    for name in ("first", "second"):
        options = ("--seed", "7", "--max-env-steps", "5000", "--registered-model-name", name)
        done = shop.python("pipeline", "train", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        versions.append(client.get_model_version(name, "1"))
    first, second = (client.get_run(version.run_id) for version in versions)
    # These depend on the clock and the machine.
    varying = {"train/env_steps_per_second"} | {name for name in first.data.metrics if name.startswith("system/")}
    for name in set(first.data.metrics) - varying:
        values = [
            [(each.step, each.value) for each in history(client, run.info.run_id, name)] for run in (first, second)
        ]
        assert sorted(values[0]) == sorted(values[1]), name
    observations = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    actions = [act(client, version, shop, observations) for version in versions]
    np.testing.assert_array_equal(*actions)


def model_id(client, name):
    """Of the first version; its source is the logged model."""
    return client.get_model_version(name, "1").source.removeprefix("models:/")


def act(client, version, shop, observations):
    directory = shop.directory / version.name
    directory.mkdir()
    model = client.get_logged_model(model_id(client, version.name))
    from mlflow.artifacts import download_artifacts

    for file in ("model.onnx", "policy.json"):
        download_artifacts(f"{model.artifact_location}/{file}", dst_path=str(directory))
    return Policy.load(Bundle.read(directory)).act(observations)
