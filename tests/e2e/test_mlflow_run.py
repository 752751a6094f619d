"""`mlflow run .` is one run, tracked while it trains, and ends in a registered version.

Training is short; `test_journey.py` trains until the environment is solved.
"""

import itertools
import signal
import sys
import time

import mlflow
import psutil
import pytest
import requests
from mlflow import MlflowClient

from pipeline.cli import cli
from tests.docs.pages import commands_to_run
from tests.workshop import PROJECT, Workshop, answers, await_true, command_line, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def mlflow_run(*parameters: str) -> tuple[str, ...]:
    return ("mlflow", "run", str(PROJECT), "--env-manager", "local", *parameters)


@pytest.fixture(scope="module")
def finished(tracked_workshop):
    """The run of the documents' `mlflow run`, but short, from another directory, and against a tracking server."""
    (line,) = [line for line in commands_to_run() if line.startswith("mlflow run .")]
    line = line.replace("mlflow run .", f"mlflow run {PROJECT}")
    done = tracked_workshop.run("bash", "-c", f"{line} -P target_return=20 -P max_env_steps=5000", timeout_s=400)
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(tracked_workshop.environment["MLFLOW_TRACKING_URI"])
    (run,) = client.search_runs(["0"], "params.seed = '1'")
    return client, run, done.stdout


def test_the_run_that_mlflow_began_is_the_run(finished):
    client, run, _ = finished
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "1"
    assert run.data.params["gamma"] == "0.98"
    assert [each.info.run_id for each in client.search_runs(["0"])] == [run.info.run_id]


def test_metrics_are_logged_per_iteration_at_environment_steps(finished):
    client, run, _ = finished
    history = client.get_metric_history(run.info.run_id, "train/return_mean_100")
    steps = [metric.step for metric in history]
    assert steps == sorted(set(steps))
    assert all(1000 <= later - earlier <= 1100 for earlier, later in itertools.pairwise(steps))
    assert run.data.metrics["evaluation/return_mean"] >= 20
    assert len(client.get_metric_history(run.info.run_id, "evaluation/return")) == 100


def test_the_configuration_and_the_learning_curve_are_artifacts(finished):
    client, run, _ = finished
    assert "config.yaml" in {each.path for each in client.list_artifacts(run.info.run_id)}
    assert "figures/learning_curve.png" in {each.path for each in client.list_artifacts(run.info.run_id, "figures")}


def test_the_version_names_its_run_and_carries_its_evaluation(finished):
    client, run, output = finished
    version = client.get_model_version("cartpole-ppo", "1")
    assert version.run_id == run.info.run_id
    assert float(version.tags["evaluation.return_mean"]) == pytest.approx(run.data.metrics["evaluation/return_mean"])
    assert "Registered models:/cartpole-ppo/1" in output
    assert "Next: python -m pipeline promote 1" in output


def test_evaluate_and_promote_are_entry_points_too(finished, tracked_workshop):
    client, _, _ = finished
    with tracked_workshop.inside():
        for name, parameters in {
            "evaluate": {"model_uri": "models:/cartpole-ppo/1", "episodes": 5},
            "promote": {"version": 1, "stage": "Staging"},
        }.items():
            mlflow.projects.run(str(PROJECT), name, parameters=parameters, env_manager="local")
    assert client.get_model_version("cartpole-ppo", "1").tags["evaluation.episodes"] == "5"
    assert client.get_model_version("cartpole-ppo", "1").current_stage == "Staging"


@pytest.mark.usefixtures("finished")
def test_rllib_continues_training_from_the_checkpoint_without_this_repository(tracked_workshop):
    script = (
        "import mlflow, ray, sys; from ray.rllib.algorithms.algorithm import Algorithm;"
        "ray.init(num_cpus=1, include_dashboard=False);"
        "path = mlflow.artifacts.download_artifacts('models:/cartpole-ppo/1/checkpoint', dst_path='downloaded');"
        "algorithm = Algorithm.from_checkpoint(path);"
        "result = algorithm.train();"
        "steps, iterations = result['num_env_steps_sampled_lifetime'], result['training_iteration'];"
        "assert 'pipeline' not in sys.modules;"
        "print('went on to', int(steps), int(iterations)); algorithm.stop()"
    )
    shop = Workshop(tracked_workshop.directory, tracked_workshop.environment | {"PYTHONPATH": ""})
    done = shop.run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    steps, iterations = map(int, done.stdout.split("went on to ")[1].split())
    assert steps > 3000
    assert iterations > 3


@pytest.mark.usefixtures("finished")
def test_mlflow_serves_the_version_without_this_repository(tracked_workshop):
    shop = Workshop(tracked_workshop.directory, tracked_workshop.environment | {"PYTHONPATH": ""})
    url = f"http://127.0.0.1:{free_port()}"
    serve = ("mlflow", "models", "serve", "--model-uri", "models:/cartpole-ppo/1", "--env-manager", "local")
    shop.start(*serve, "--port", url.rsplit(":", 1)[1], log="models-serve.log")
    try:
        await_true(lambda: answers(f"{url}/ping"), "mlflow models serve answers")
        observations = [[0.0, 0.0, 0.1, 0.5], [0.0, 0.0, -0.1, -0.5]]
        answer = requests.post(f"{url}/invocations", json={"inputs": observations}, timeout=10)
    finally:
        shop.end()
    assert answer.json()["predictions"]["action"] == [1, 0]


# --- interrupted ----------------------------------------------------------------------------------------------------


def start_training(shop: Workshop, *, under_mlflow: bool) -> tuple[psutil.Process, psutil.Process, MlflowClient]:
    """A training run under way: its outermost process, the one that trains, and a client of its store."""
    forever = ("--target-return", "100000", "--max-env-steps", "10000000")
    if under_mlflow:
        shop.start(*mlflow_run("-P", "target_return=100000", "-P", "max_env_steps=10000000"))
    else:
        shop.start(sys.executable, "-m", "pipeline", "train", *forever)
    await_true(lambda: "8," in shop.output() and "greedy return" in shop.output(), "training is under way", 120)
    lines = {command_line(process): process for process in shop.processes()}
    trainer = next(process for line, process in lines.items() if "-m pipeline train" in line and "bash" not in line)
    parent = next((process for line, process in lines.items() if "mlflow run" in line), trainer)
    return parent, trainer, shop.client()


@pytest.mark.parametrize(
    ("target", "number"),
    [
        pytest.param("trainer", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("parent", signal.SIGTERM, marks=pytest.mark.long),
        ("both", signal.SIGINT),
    ],
)
def test_an_interrupted_run_under_mlflow_run_ends_and_registers_nothing(workshop, target, number):
    """A terminal's Ctrl-C reaches both processes. `mlflow run`, where it survives, marks the run as FAILED."""
    parent, trainer, client = start_training(workshop, under_mlflow=True)
    targets = {"trainer": [trainer], "parent": [parent], "both": [parent, trainer]}[target]
    for process in targets:
        process.send_signal(number)
    await_true(lambda: not workshop.processes(), "every process has ended")
    (run,) = client.search_runs(["0"])
    assert run.info.status in {"trainer": {"FAILED"}, "parent": {"KILLED"}, "both": {"FAILED", "KILLED"}}[target]
    assert not client.search_registered_models()


@pytest.mark.long
def test_an_interrupted_command_is_killed_and_shows_one_line(workshop):
    _, trainer, client = start_training(workshop, under_mlflow=False)
    trainer.send_signal(signal.SIGINT)
    await_true(lambda: not workshop.processes(), "every process has ended")
    (run,) = client.search_runs(["0"])
    *_, how, ended = workshop.output().splitlines()
    assert how.endswith(f"To resume: python -m pipeline train --resume {run.info.run_id}")
    assert ended == "Error: Interrupted by SIGINT."
    assert run.info.status == "KILLED"


@pytest.mark.long
def test_mlflow_run_resumes_an_interrupted_run(workshop):
    """MLproject passes the default of every setting beside the run; the settings are those of the run."""
    options = ("--target-return", "501", "--max-env-steps", "12000", "--evaluation-interval", "2048")
    process = workshop.start(sys.executable, "-m", "pipeline", "train", *options)
    await_true(lambda: "greedy return" in workshop.output(), "training is under way", 120)
    process.send_signal(signal.SIGTERM)
    await_true(lambda: not workshop.processes(), "every process has ended")
    client = workshop.client()
    (run,) = client.search_runs(["0"])
    done = workshop.run(*mlflow_run("-P", f"resume={run.info.run_id}"), timeout_s=400)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = {each.info.run_id: each for each in client.search_runs(["0"])}
    resumed = runs.pop(run.info.run_id)
    assert (resumed.info.status, resumed.data.params["max_env_steps"]) == ("FINISHED", "12000")
    (created,) = runs.values()
    assert (created.info.status, created.data.tags["resumed"]) == ("FINISHED", run.info.run_id)
    assert client.get_model_version("cartpole-ppo", "1").run_id == run.info.run_id


@pytest.mark.long
def test_a_run_interrupted_while_ray_starts_leaves_nothing(workshop):
    workshop.start(sys.executable, "-m", "pipeline", "train", "--num-env-runners", "1")
    await_true(lambda: "trying the export" in workshop.output(), "Ray starts")
    time.sleep(2)  # somewhere within the seconds that Ray takes; there is nothing to await
    (trainer,) = [process for process in workshop.processes() if " train " in command_line(process)]
    trainer.send_signal(signal.SIGTERM)
    await_true(lambda: not workshop.processes(), "every process has ended")
    assert workshop.output().splitlines()[-1] == "Error: Interrupted by SIGTERM."
    client = workshop.client()
    assert client.search_runs(["0"])[0].info.status == "KILLED"


def test_a_policy_that_cannot_be_exported_fails_soon(workshop):
    """The export is tried while training starts, long before the policy is solved."""
    options = ("--rl-module", "tests.pipeline.zoo:Untranslatable", "--model-config", '{"units": 8}')
    done = workshop.invoke(cli, "train", *options, "--max-env-steps", "100000000", "--target-return", "1000")
    assert done.exit_code == 1
    assert "cannot be exported to ONNX" in done.stderr
    client = workshop.client()
    assert client.search_runs(["0"])[0].info.status == "FAILED"
    assert not client.search_registered_models()


def test_a_run_that_fails_is_failed(workshop):
    done = workshop.invoke(cli, "train", "--fcnet-activation", "nonsense")
    assert done.exit_code == 1
    client = workshop.client()
    assert client.search_runs(["0"])[0].info.status == "FAILED"
    assert not client.search_registered_models()
