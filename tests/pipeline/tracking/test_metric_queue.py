"""What goes to MLflow while training arrives in order, and outlives an outage of the server."""

import signal
import sys

import mlflow
import pytest

from pipeline.tracking import metric_queue as outbox_module
from pipeline.tracking import run as tracking
from pipeline.tracking.metric_queue import Outbox
from tests.workshop import Workshop, answers, await_true, free_port


class Server:
    """A real MLflow server that can go away and come back."""

    def __init__(self, shop):
        self._shop, self._port = shop, free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self):
        command = (sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self._port))
        store = ("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./mlartifacts")
        self._shop.start(*command, *store)
        await_true(lambda: answers(f"{self.url}/health"), "the MLflow server answers")

    def stop(self):
        for process in self._shop.processes():
            process.send_signal(signal.SIGKILL)
        await_true(lambda: not self._shop.processes(), "the MLflow server has ended")


@pytest.fixture
def server(tmp_path, monkeypatch):
    shop = Workshop(tmp_path, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    server = Server(shop)
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    mlflow.set_tracking_uri(server.url)
    try:
        server.start()
        yield server
    finally:
        mlflow.set_tracking_uri(before)
        shop.end()


def points(run_id, name):
    return [(each.step, each.value) for each in mlflow.MlflowClient().get_metric_history(run_id, name)]


@pytest.mark.e2e
def test_an_outage_delays_and_loses_nothing(server, tmp_path):
    said = []
    file = tmp_path / "note.txt"
    file.write_text("something")
    with tracking.run("train") as run_id, Outbox(run_id, said.append) as outbox:
        outbox.metrics({"m": 0.0}, step=0)
        assert outbox.flush(timeout_s=20)
        server.stop()
        for step in range(1, 30):
            outbox.metrics({"m": float(step)}, step)
        outbox.file("note", lambda: mlflow.MlflowClient().log_artifact(run_id, str(file)))
        await_true(lambda: said, "the outage is noticed")
        assert said == ["The tracking server is away; what is logged waits for it."]
        assert not outbox.flush(timeout_s=0.1)
        server.start()
        for step in range(30, 40):
            outbox.metrics({"m": float(step)}, step)
    assert points(run_id, "m") == [(step, float(step)) for step in range(40)]
    assert [each.path for each in mlflow.MlflowClient().list_artifacts(run_id)] == ["note.txt"]
    assert said[-1] == "The tracking server is back."


@pytest.mark.usefixtures("store")
def test_leaving_it_waits_until_all_is_sent():
    with tracking.run("train") as run_id:
        with Outbox(run_id, print) as outbox:
            for step in range(2500):
                outbox.metrics({"m": float(step)}, step)
        assert points(run_id, "m") == [(step, float(step)) for step in range(2500)]


@pytest.mark.usefixtures("store")
def test_of_files_of_one_key_the_newest_that_waits_is_sent():
    sent = []
    with tracking.run("train") as run_id, Outbox(run_id, print) as outbox:
        for number in range(100):
            outbox.file("curve", lambda number=number: sent.append(number))
    assert sent[-1] == 99
    assert len(sent) < 100


@pytest.mark.usefixtures("store")
def test_a_failure_that_is_no_outage_reaches_the_one_who_waits():
    def fail():
        raise ValueError("no")

    with tracking.run("train") as run_id, pytest.raises(ValueError, match="no"), Outbox(run_id, print) as outbox:
        outbox.file("curve", fail)


@pytest.mark.usefixtures("store")
def test_the_machine_is_watched(monkeypatch):
    monkeypatch.setattr(outbox_module, "_SYSTEM_INTERVAL_S", 0.1)
    with tracking.run("train") as run_id, Outbox(run_id, print):
        await_true(lambda: "system/cpu_utilization_percentage" in mlflow.get_run(run_id).data.metrics, "it is logged")
    assert mlflow.get_run(run_id).data.metrics["system/process_memory_usage_megabytes"] > 1
