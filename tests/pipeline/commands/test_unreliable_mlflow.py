"""Every command, with an MLflow server that fails in one way or another, ends with one line and status 1."""

import contextlib
import os
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner

from pipeline.cli import cli
from tests.serving.policies import CARTPOLE_BUNDLE, digest_tags
from tests.unreliable_proxy import CLOSE, unreliable_proxy
from tests.workshop import Workshop

pytestmark = pytest.mark.e2e

MODEL = "unreliable"

COMMANDS = {
    "train": ["train", "--registered-model-name", MODEL],
    "train --from": ["train", "--from", f"models:/{MODEL}/1"],
    "train --resume": ["train", "--resume", "0" * 32],
    "tune": ["tune"],
    "tune --resume": ["tune", "--resume", "0" * 32],
    "evaluate": ["evaluate", f"models:/{MODEL}/1", "--episodes", "2"],
    "verify": ["verify", f"models:/{MODEL}/1", "--observations", "20"],
    "promote": ["promote", "3", "--name", MODEL, "--episodes", "2"],
    "promote --alias": ["promote", "3", "--name", MODEL, "--episodes", "2", "--alias", "champion"],
    "promote --stage Staging": ["promote", "3", "--name", MODEL, "--stage", "Staging"],
    "rollback": ["rollback", "--name", MODEL],
    "versions": ["versions", "--name", MODEL],
    "history": ["history", "--name", MODEL],
}


def register(client, experiment, name=MODEL):
    """Register a version whose files the server keeps."""
    run = client.create_run(experiment)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "model.onnx").write_bytes(CARTPOLE_BUNDLE.graph)
        Path(directory, "policy.json").write_bytes(CARTPOLE_BUNDLE.policy)
        client.log_artifacts(run.info.run_id, directory, "bundle")
    client.set_terminated(run.info.run_id)
    tags = digest_tags(CARTPOLE_BUNDLE)
    client.create_model_version(name, f"{run.info.artifact_uri}/bundle", run.info.run_id, tags=tags)


@pytest.fixture(scope="module")
def proxied(tracked_workshop, tmp_path_factory):
    """A workshop with a proxy before its MLflow server, the proxy, and a client of the server.

    Version 2 has replaced version 1 in Production; version 3 is new.
    """
    directory = tmp_path_factory.mktemp("proxied")
    with unreliable_proxy(tracked_workshop.environment["MLFLOW_TRACKING_URI"]) as proxy:
        variables = {"MLFLOW_TRACKING_URI": proxy.url, "MLFLOW_EXPERIMENT_NAME": MODEL}
        shop = Workshop(directory, {**variables, "XDG_CACHE_HOME": str(directory)})
        client = tracked_workshop.client()
        experiment = client.create_experiment(MODEL)
        client.create_registered_model(MODEL)
        for _ in range(3):
            register(client, experiment)
        for version in "1", "2":
            done = run(shop, "promote", version, "--name", MODEL, "--episodes", "2")
            assert done.exit_code == 0, done.output
        yield shop, proxy, client


def run(shop, *arguments):
    """Run a command in this process, without Ray and without MLflow's retries."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(shop.inside())
        quick = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
        stack.enter_context(mock.patch.dict(os.environ, quick))
        for start in ("rllib.ray_session.RaySession.start", "training.worker_process.WorkerProcess.start"):
            stack.enter_context(mock.patch(f"pipeline.{start}"))
        return CliRunner().invoke(cli, arguments)


def state(client):
    """Return what the registry holds, and the runs that are still running."""
    stages = {each.version: each.current_stage for each in client.search_model_versions(f"name='{MODEL}'")}
    model = client.get_registered_model(MODEL)
    experiment = client.get_experiment_by_name(MODEL).experiment_id
    running = client.search_runs([experiment], "attributes.status = 'RUNNING'")
    return stages, model.tags, model.aliases, [each.info.run_id for each in running]


def assert_one_line(done, reason):
    lines = done.stderr.splitlines()
    assert (done.exit_code, len(lines)) == (1, 1), (done.output, done.exception)
    assert reason in lines[0]


def long(*values):
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (503, "no MLflow server answers at"),
        (401, "requires credentials"),
        (200, "not in a valid JSON format"),  # the page of a gateway that wants people to log in
        long(500, "(status 500)"),
        long(CLOSE, "remote end closed connection"),
        long(403, "does not permit this account"),
        long(404, "404"),
    ],
)
def test_a_server_whose_api_fails_ends_every_command_at_its_start(proxied, command, status, reason):
    shop, proxy, _ = proxied
    with proxy.failing(status, path="^/api/"):
        assert_one_line(run(shop, *COMMANDS[command]), reason)


PARTS = [
    ("train", "logged-models/search"),
    ("train --resume", "runs/get"),
    ("evaluate", "model-versions/set-tag"),
    ("promote", "registered-models/set-tag"),
    ("promote", "transition-stage"),
    ("rollback", "transition-stage"),
]

FURTHER_PARTS = [
    ("train", "experiments/get"),
    ("tune", "experiments/get"),
    ("tune --resume", "runs/get"),
    ("evaluate", "model-versions/get"),
    ("evaluate", "mlflow-artifacts/artifacts"),
    ("evaluate", "runs/create"),
    ("evaluate", "runs/log-batch"),
    ("verify", "mlflow-artifacts/artifacts"),
    ("promote", "mlflow-artifacts/artifacts"),
    ("promote", "runs/create"),
    ("promote", "runs/set-tag"),
    ("promote --alias", "registered-models/alias"),
    ("promote --stage Staging", "transition-stage"),
    ("rollback", "registered-models/set-tag"),
    ("versions", "model-versions/search"),
    ("history", "registered-models/get"),
]


@pytest.mark.parametrize(("command", "path"), [*PARTS, *(long(*each) for each in FURTHER_PARTS)])
@pytest.mark.parametrize("status", [503, long(403)])
def test_a_part_of_the_api_that_fails_leaves_the_registry_as_it_was_and_no_run_running(proxied, command, path, status):
    shop, proxy, client = proxied
    before = state(client)
    shop.environment["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=shop.directory)  # nothing is downloaded yet
    with proxy.failing(status, path=path):
        assert_one_line(run(shop, *COMMANDS[command]), str(status))
    assert state(client) == before


@pytest.mark.parametrize("command", ["versions", "history", "rollback", "promote", "promote --alias"])
def test_an_account_that_may_only_read_can_list_and_is_told_what_it_may_not(proxied, command):
    shop, proxy, client = proxied
    before = state(client)
    with proxy.failing(403, methods=["PUT", "PATCH", "DELETE"]), proxy.failing(403, path="create|set|update|log-"):
        done = run(shop, *COMMANDS[command])
    if command in {"versions", "history"}:
        assert done.exit_code == 0, done.output
    else:
        assert_one_line(done, "does not permit this account to do this")
    assert state(client) == before
