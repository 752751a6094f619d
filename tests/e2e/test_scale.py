"""Training on several processes, which may die, outnumber the cores, or belong to a cluster."""

import math
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from tests.workshop import Workshop, await_true, command_line, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(600)]

TRAIN = (sys.executable, "-m", "pipeline", "train")

#: Enough steps for a lost environment runner to come back.
BUDGET = ("--target-return", "501", "--max-env-steps", "12000", "--evaluation-interval", "2048")


@pytest.fixture
def client(workshop):
    return workshop.client()


def env_runners(shop: Workshop) -> list[psutil.Process]:
    return [each for each in shop.processes() if command_line(each).startswith("ray::ArrayEnvRu")]


def await_evaluations(shop: Workshop, count: int) -> None:
    await_true(lambda: shop.output().count("greedy return ") > count, "training has evaluated", 120)


def trained_run(shop: Workshop, client: MlflowClient):
    """Return the MLflow run after the started command has registered a version."""
    await_true(lambda: not shop.processes(), "every process ends", 240)
    assert "Registered models:/cartpole-ppo/1" in shop.output(), shop.output()
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    return run


def assert_continued(shop: Workshop, client: MlflowClient, message: str) -> None:
    """Assert that training survived the loss of environment runners, and logged nothing that was not measured."""
    run = trained_run(shop, client)
    assert message in shop.output()
    assert "All environment runners are back" in shop.output()
    metrics = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    assert all(math.isfinite(point.value) for points in metrics.values() for point in points)
    steps = [point.step for point in metrics["train/return_mean_100"]]
    assert steps == sorted(set(steps)), "an iteration without samples was logged"
    assert steps[-1] >= 12_000
    assert run.data.metrics["evaluation/return_mean"] > 50


@pytest.mark.long
def test_training_continues_when_one_of_two_environment_runners_is_killed(workshop, client):
    workshop.start(*TRAIN, "--num-env-runners", "2", *BUDGET)
    await_evaluations(workshop, 1)
    first, _ = env_runners(workshop)
    first.kill()
    assert_continued(workshop, client, "1 of 2 environment runners lost; restarting them\n")


STUCK = (
    "the environment 'tests.zoo.failing:StepRaisesLater-v0' failed: step 7 of episode 20 raised RuntimeError: the motor"
)
LOST = "All environment runners were lost 4 times within "


@pytest.mark.long
@pytest.mark.parametrize(("name", "message"), [("StepRaisesLater", STUCK), ("StepExitsLater", LOST)])
def test_an_environment_that_fails_in_a_runner_ends_the_run_in_one_line(workshop, client, name, message):
    environment = ("--env-id", f"tests.zoo.failing:{name}-v0", "--train-batch-size-per-learner", "10240")
    process = workshop.start(*TRAIN, "--num-env-runners", "1", *environment, *BUDGET)
    assert process.wait(120) == 1
    assert workshop.output().splitlines()[-1].startswith(f"Error: {message}")
    assert "Traceback" not in workshop.output()
    await_true(lambda: not workshop.processes(), "every process ends", 60)
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FAILED"


@pytest.mark.long
def test_a_run_with_more_processes_than_cores_resumes(workshop, client):
    number = str(psutil.cpu_count())
    process = workshop.start(*TRAIN, "--num-env-runners", number, "--num-learners", "1", "--target-return", "501")
    await_evaluations(workshop, 0)
    process.send_signal(signal.SIGTERM)
    await_true(lambda: not workshop.processes(), "every process ends", 120)
    (run,) = client.search_runs(["0"])
    workshop.start(*TRAIN, "--resume", run.info.run_id)
    await_evaluations(workshop, 0)


@pytest.fixture
def cluster(workshop):
    """A running Ray with two CPUs, and its address; the workshop's commands have its token."""
    directory = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # short, for Ray's sockets
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 3}
    workshop.environment.update(token)
    other = Workshop(directory, {"RAY_TMPDIR": str(directory), **token})
    port = free_port()
    other.start(
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port", str(port)),
        *("--num-cpus", "2", "--include-dashboard", "false", "--temp-dir", str(directory), "--disable-usage-stats"),
    )
    await_true(lambda: "Ray runtime started" in other.output(), "Ray runs")
    yield other, f"127.0.0.1:{port}"
    other.end()
    shutil.rmtree(directory, ignore_errors=True)


def test_training_joins_a_cluster_sends_it_the_code_survives_a_lost_runner_and_leaves_it_running(
    workshop, client, cluster
):
    other, address = cluster
    (workshop.directory / "corridor.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Corridor-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=500)\n"
    )
    processes = ("--num-env-runners", "1", "--num-learners", "1", "--registered-model-name", "cartpole-ppo")
    process = workshop.start(*TRAIN, "--address", address, *processes, "--env-id", "corridor:Corridor-v0", *BUDGET)
    await_evaluations(workshop, 1)
    (runner,) = env_runners(other)
    runner.kill()
    lost = "1 of 1 environment runners lost; restarting them; until then iterations have no samples\n"
    assert_continued(workshop, client, lost)
    assert process.wait() == 0
    (shipped,) = other.directory.glob("session_2*/runtime_resources/py_modules_files")
    assert {each.name for each in shipped.rglob("*.py")} >= {"corridor.py", "cli.py", "policy.py"}
    assert any("gcs_server" in command_line(each) for each in other.processes())
