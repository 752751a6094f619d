"""Metrics and files reach MLflow in order, and outlast an outage of the server."""

import signal
import sys
import threading
import time

import mlflow
import pytest

from pipeline.tracking import metric_queue
from pipeline.tracking import run as tracking
from pipeline.tracking.metric_queue import MetricQueue
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
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    mlflow.set_tracking_uri(server.url)
    try:
        server.start()
        yield server
    finally:
        mlflow.set_tracking_uri(None)
        shop.end()


def points(run_id, name):
    return [(each.step, each.value) for each in mlflow.MlflowClient().get_metric_history(run_id, name)]


@pytest.mark.e2e
def test_an_outage_delays_and_loses_nothing(server, tmp_path):
    notices = []
    file = tmp_path / "note.txt"
    file.write_text("something")
    with tracking.run("train") as run_id, MetricQueue(run_id, notices.append) as queue:
        queue.log_metrics({"m": 0.0}, step=0)
        assert queue.flush(timeout_s=20)
        server.stop()
        for step in range(1, 30):
            queue.log_metrics({"m": float(step)}, step)
        queue.upload("note", lambda: mlflow.MlflowClient().log_artifact(run_id, str(file)))
        await_true(lambda: notices, "the outage is noticed")
        assert notices == ["The tracking server is unreachable; metrics and files wait in memory."]
        assert not queue.flush(timeout_s=0.1)
        server.start()
        for step in range(30, 40):
            queue.log_metrics({"m": float(step)}, step)
    assert points(run_id, "m") == [(step, float(step)) for step in range(40)]
    assert [each.path for each in mlflow.MlflowClient().list_artifacts(run_id)] == ["note.txt"]
    assert notices[-1] == "The tracking server is reachable again."


@pytest.mark.usefixtures("store")
def test_leaving_the_block_waits_until_everything_is_sent():
    with tracking.run("train") as run_id:
        with MetricQueue(run_id, print) as queue:
            for step in range(2500):
                queue.log_metrics({"m": float(step)}, step)
        assert points(run_id, "m") == [(step, float(step)) for step in range(2500)]


@pytest.mark.usefixtures("store")
def test_a_newer_upload_replaces_a_waiting_one_of_its_key():
    sent = []
    with tracking.run("train") as run_id, MetricQueue(run_id, print) as queue:
        for number in range(100):
            queue.upload("curve", lambda number=number: sent.append(number))
    assert sent[-1] == 99
    assert len(sent) < 100


@pytest.mark.usefixtures("store")
def test_an_error_other_than_an_outage_is_raised_by_flush():
    def fail():
        raise ValueError("no")

    with tracking.run("train") as run_id, pytest.raises(ValueError, match="no"), MetricQueue(run_id, print) as queue:
        queue.upload("curve", fail)


@pytest.mark.usefixtures("store")
def test_flush_waits_no_longer_than_its_timeout():
    stop = threading.Event()
    with tracking.run("train") as run_id, MetricQueue(run_id, print) as queue:
        queue.upload("slow", stop.wait)
        begun = time.monotonic()
        assert not queue.flush(timeout_s=0.1)
        assert time.monotonic() - begun < metric_queue._NOTICE_AFTER_S
        stop.set()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("method", ["__init__", "measure"])
def test_a_machine_that_cannot_be_measured_costs_one_line(monkeypatch, method):
    def fail(*_):
        raise OSError("no /proc")

    notices = []
    monkeypatch.setattr(metric_queue, "_SYSTEM_INTERVAL_S", 0.01)
    monkeypatch.setattr(metric_queue.SystemMetrics, method, fail)
    with tracking.run("train") as run_id, MetricQueue(run_id, notices.append) as queue:
        await_true(lambda: notices, "the failure is reported")
        queue.log_metrics({"m": 1.0}, step=0)
    assert points(run_id, "m") == [(0, 1.0)]
    assert notices == ["The load of this machine is not logged: OSError: no /proc"]


@pytest.mark.usefixtures("store")
def test_the_load_of_the_machine_is_logged(monkeypatch):
    monkeypatch.setattr(metric_queue, "_SYSTEM_INTERVAL_S", 0.1)
    with tracking.run("train") as run_id, MetricQueue(run_id, print):
        await_true(lambda: "system/cpu_utilization_percentage" in mlflow.get_run(run_id).data.metrics, "it is logged")
    assert mlflow.get_run(run_id).data.metrics["system/process_memory_usage_megabytes"] > 1
