"""A search is one run with a child run per trial; it can be resumed, and registers the policy of the best trial."""

import json
import signal
import sys

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.artifacts import load_text

from pipeline.cli import cli
from tests.workshop import Workshop, await_true

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

#: Trials of a few seconds.
SPACE = """
settings: {max_env_steps: 3000, evaluation_interval: 1000, evaluation_episodes: 5, registered_model_name: searched}
search:
  lr: [1e-3, 3e-3]
  num_epochs: [4, 8]
"""


def tune(*options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pipeline", "tune", *options)


def await_end(shop: Workshop) -> None:
    await_true(lambda: not shop.processes(), "every process has ended", 180)


def children(client: MlflowClient, parent: str):
    runs = client.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{parent}'")
    return {int(run.data.tags["trial.number"]): run for run in runs}


def ended(shop: Workshop) -> int:
    output = shop.output()
    return output.count(", finished\n") + output.count(", stopped early\n")


@pytest.fixture(scope="module")
def shop(tmp_path_factory, new_database):
    directory = tmp_path_factory.mktemp("tuned")
    new_database(directory)
    shop = Workshop(directory)
    (shop.directory / "space.yaml").write_text(SPACE)
    yield shop
    shop.end()


@pytest.fixture(scope="module")
def client(shop):
    return shop.client()


@pytest.fixture(scope="module")
def resumed(shop, client):
    """The parent run and its first ended trials: killed outright, then resumed to the end."""
    process = shop.start(*tune("--search", "space.yaml", "--num-trials", "2", "--max-concurrent", "1"))
    await_true(lambda: ended(shop) >= 1, "a trial has ended", 180)
    process.kill()
    for each in shop.processes():
        each.kill()
    await_end(shop)
    (parent,) = [run for run in client.search_runs(["0"]) if run.info.run_name == "tune"]
    parent_id = parent.info.run_id
    first = {number: run for number, run in children(client, parent_id).items() if run.info.status == "FINISHED"}
    assert first
    done = shop.invoke(cli, "tune", "--resume", parent_id)
    assert done.exit_code == 0, done.output
    return parent_id, first, done.stdout


def test_trials_that_ended_are_not_run_again(client, resumed):
    parent_id, first, _ = resumed
    now = children(client, parent_id)
    assert set(now) == {1, 2}
    assert client.get_run(parent_id).info.status == "FINISHED"
    assert {run.info.status for run in now.values()} == {"FINISHED"}
    for number, run in first.items():
        assert now[number].info.end_time == run.info.end_time


def test_each_trial_is_a_run_with_its_settings_and_curves(client, resumed):
    parent_id, _, _ = resumed
    for run in children(client, parent_id).values():
        drawn = json.loads(run.data.tags["trial.settings"])
        assert {name: run.data.params[name] for name in drawn} == {name: str(value) for name, value in drawn.items()}
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/return_mean_100")]
        assert steps, "a trial that is stopped early has at least one iteration"
        assert client.get_metric_history(run.info.run_id, "evaluation/greedy_return_mean")


def test_the_best_trial_is_registered_with_its_lineage(client, resumed):
    parent_id, _, output = resumed
    version = client.get_model_version("searched", "1")
    trials = children(client, parent_id)
    best = trials[int(version.tags["trial.number"])]
    assert version.run_id == version.tags["tune.run"] == parent_id
    assert version.tags["trial.run"] == best.info.run_id
    assert version.tags["trial.settings"] == best.data.tags["trial.settings"]
    means = {number: json.loads(run.data.tags["trial.standing"])["best_mean"] for number, run in trials.items()}
    assert means[int(version.tags["trial.number"])] == max(means.values())
    assert "Registered models:/searched/1" in output
    settings = yaml.safe_load(load_text(f"{client.get_run(parent_id).info.artifact_uri}/best.yaml"))
    assert settings == yaml.safe_load(output.split("train --config FILE:\n\n")[1])


def test_a_search_that_finished_is_not_resumed(shop, resumed):
    done = shop.invoke(cli, "tune", "--resume", resumed[0])
    assert done.exit_code == 1
    assert f"Run {resumed[0]} cannot be resumed: it finished." in done.stderr


@pytest.mark.long
def test_an_interrupted_search_shows_how_to_resume(workshop):
    (workshop.directory / "space.yaml").write_text(SPACE)
    process = workshop.start(*tune("--search", "space.yaml", "--num-trials", "3"))
    await_true(lambda: ", running\n" in workshop.output(), "a trial runs", 180)
    process.send_signal(signal.SIGTERM)
    await_end(workshop)
    client = workshop.client()
    (parent,) = [run for run in client.search_runs(["0"]) if run.info.run_name == "tune"]
    assert f"To resume: python -m pipeline tune --resume {parent.info.run_id}" in workshop.output(), workshop.output()
    assert workshop.output().splitlines()[-1] == "Error: Interrupted by SIGTERM."
    assert parent.info.status == "KILLED"
    assert {run.info.status for run in children(client, parent.info.run_id).values()} <= {"FINISHED", "KILLED"}


@pytest.mark.long
def test_a_trial_that_fails_is_reported_and_does_not_end_the_search(shop, client):
    space = "settings: {max_env_steps: 4000, evaluation_interval: 2000, evaluation_episodes: 5}\nsearch:\n"
    (shop.directory / "failing.yaml").write_text(space + "  fcnet_activation: [nonsense]\n")
    done = shop.run(*tune("--search", "failing.yaml", "--num-trials", "2", "--registered-model-name", "failing"))
    assert done.returncode == 0, done.stdout + done.stderr
    version = client.get_model_version("failing", "1")
    trials = children(client, version.run_id)
    assert (trials[1].info.status, trials[2].info.status) == ("FINISHED", "FAILED")
    assert trials[2].data.params["fcnet_activation"] == "nonsense"
    assert "nonsense" in trials[2].data.tags["trial.error"]
    assert "Trial 2 failed: " in done.stdout
    assert version.tags["trial.number"] == "1"
