"""A training that is interrupted while the tracking server is unreachable keeps its last checkpoint, and says where."""

import signal
import sys

import pytest

from tests.workshop import Workshop, answers, await_true, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(600)]


def test_an_interruption_without_the_server_reports_where_the_checkpoint_is_kept(tmp_path, workshop):
    (tmp_path / "server").mkdir()
    server = Workshop(tmp_path / "server", {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    url = f"http://127.0.0.1:{free_port()}"
    command = (sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", url.rpartition(":")[2])
    try:
        server.start(*command, "--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./artifacts")
        await_true(lambda: answers(f"{url}/health"), "the MLflow server answers")
        workshop.environment["MLFLOW_TRACKING_URI"] = url
        options = ("--checkpoint-interval-s", "1", "--target-return", "501")
        process = workshop.start(sys.executable, "-m", "pipeline", "train", *options)
        await_true(lambda: list(tmp_path.glob("server/artifacts/**/*.json")), "a checkpoint arrived", 180)
    finally:
        server.end()
    await_true(lambda: "The tracking server is unreachable" in workshop.output(), "the outage is noticed")
    process.send_signal(signal.SIGTERM)
    await_true(lambda: process.poll() is not None, "the command ends", 100)
    *_, arrived, how, ended = workshop.output().splitlines()
    (kept,) = tmp_path.glob("checkpoint-*.tar")
    assert arrived.endswith(f"steps, was not uploaded. Resume where it is: {kept}")
    assert "To resume: python -m pipeline train --resume " in how
    assert ended == "Error: Interrupted by SIGTERM."
