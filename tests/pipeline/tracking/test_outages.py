"""Failures of the tracking server delay what is sent, refusals are one line, and each error is told from the others."""

import functools
import signal
import threading

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from pipeline.errors import Interrupted
from pipeline.signals import deferred, interruptible
from pipeline.tracking import checkpoint_store, metric_queue, outages
from pipeline.tracking import run as tracking
from pipeline.tracking.errors import TrackingFailed, TrackingRefused
from pipeline.tracking.metric_queue import MetricQueue
from pipeline.tracking.outages import is_failure, is_refusal, reason_of, retry_through_outages, status_of
from serving.registry.tracking import bounded_retries
from tests.unreliable_proxy import CLOSE, unreliable_proxy
from tests.workshop import await_true


class ClientError(Exception):
    """As botocore raises it."""

    def __init__(self, status):
        super().__init__("An error occurred (AccessDenied) when calling the DeleteObject operation: Access Denied")
        self.response = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": status}}


class EndpointConnectionError(type("ConnectionError", (Exception,), {})):
    """As botocore names it."""


RETRIES = requests.exceptions.RetryError("Max retries exceeded (too many 503 error responses)")
TOO_LARGE = MlflowException("API request to endpoint /a failed with error code 413 != 200. Response body: ''")
SEVERAL = MlflowException("The following failures occurred: {'a': HTTPError('403 Client Error: no')}")


def answer(status):
    response = requests.Response()
    response.status_code, response.url = status, "http://127.0.0.1:5000/api"
    return requests.HTTPError(f"{status} Client Error: no", response=response)


def wrapped(error):
    """An MLflow exception that the handler of another one raised, as MLflow's HTTP layer does it."""
    try:
        try:
            raise error
        except type(error) as inner:
            raise MlflowException(f"API request to http://u:secret@h failed with exception {inner}")  # noqa: B904
    except MlflowException as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "status", "failure", "refusal"),
    [
        (answer(500), 500, True, False),
        (answer(503), 503, True, False),
        (answer(429), 429, True, False),
        (answer(403), 403, False, True),
        (answer(405), 405, False, True),
        (answer(413), 413, False, True),
        (answer(501), 501, False, True),
        (answer(507), 507, False, True),
        (
            wrapped(requests.exceptions.RetryError("Max retries exceeded (too many 503 error responses)")),
            503,
            True,
            False,
        ),
        (wrapped(requests.ConnectionError("refused")), None, True, False),
        (wrapped(requests.ReadTimeout("late")), None, True, False),
        (RestException({"error_code": "PERMISSION_DENIED", "message": "no"}), 403, False, True),
        (RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}), 404, False, True),
        (RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "locked"}), 503, True, False),
        (TOO_LARGE, 413, False, True),
        (
            MlflowException("The following failures occurred: {'a': HTTPError('403 Client Error: no')}"),
            403,
            False,
            True,
        ),
        (ClientError(403), 403, False, True),
        (ClientError(503), 503, True, False),
        (EndpointConnectionError("http://s3"), None, True, False),
        (ConnectionResetError(), None, True, False),
        (OSError(28, "No space left on device"), None, False, False),
        (ValueError("no"), None, False, False),
    ],
    ids=lambda value: f"{type(value).__name__}-{value}"[:60] if isinstance(value, Exception) else None,
)
def test_failures_are_told_from_refusals_and_from_other_errors(error, status, failure, refusal):
    assert (status_of(error), is_failure(error), is_refusal(error)) == (status, failure, refusal)
    assert "secret" not in reason_of(error)


def test_a_call_is_repeated_until_it_succeeds_and_its_result_is_returned(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    mlflow.set_tracking_uri(None)
    monkeypatch.setattr(outages, "RETRY_INTERVAL_S", 0.0)
    monkeypatch.setattr(outages, "is_reachable", lambda: True)
    tries, notices = iter([answer(500)] * 4), []

    def send():
        if error := next(tries, None):
            raise error
        return 7

    assert retry_through_outages(send, notices.append, "metrics") == 7
    assert notices == [
        "The tracking server answers with errors (status 500); metrics and files wait in memory.",
        "The tracking server works again.",
    ]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (answer(403), TrackingRefused, "MLflow does not accept metrics (status 403)."),
        (answer(500), TrackingFailed, "MLflow has failed to take metrics for -1 s (status 500)."),
        (ValueError("no"), ValueError, "no"),
    ],
)
def test_what_is_no_outage_or_lasts_too_long_is_one_error(monkeypatch, error, kind, message):
    monkeypatch.setattr(outages, "is_reachable", lambda: True)

    def send():
        raise error

    with pytest.raises(kind) as caught:
        retry_through_outages(send, print, "metrics", longest_s=-1)
    assert str(caught.value) == message


def test_a_signal_ends_the_wait_for_a_server_even_where_signals_are_deferred(monkeypatch):
    monkeypatch.setattr(outages, "is_reachable", lambda: False)

    def send():
        signal.raise_signal(signal.SIGTERM)
        raise answer(503)

    with pytest.raises(Interrupted), interruptible(), deferred():
        retry_through_outages(send, print, "metrics")


def test_a_signal_ends_a_flush_without_limit_even_where_signals_are_deferred(monkeypatch):
    monkeypatch.setattr(metric_queue, "_NOTICE_AFTER_S", 0.01)
    stop = threading.Event()
    with pytest.raises(Interrupted), interruptible():  # noqa: PT012  # the signal has to arrive in the block
        queue = MetricQueue("0" * 32, print, logs_system_metrics=False)
        queue.open()
        queue.upload("slow", stop.wait)
        try:
            with deferred():
                signal.raise_signal(signal.SIGTERM)
                queue.flush()
        finally:
            stop.set()
            queue.close()


# --- a real server behind a proxy that fails -----------------------------------------------------------------------


@pytest.fixture
def proxy(tracked_workshop, monkeypatch, tmp_path):
    with unreliable_proxy(tracked_workshop.environment["MLFLOW_TRACKING_URI"]) as proxy:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
        monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
        mlflow.set_tracking_uri(proxy.url)
        yield proxy
        mlflow.set_tracking_uri(None)


@pytest.fixture
def save(tmp_path):
    """Pack a checkpoint with 100 kB of content."""
    directory, archive = tmp_path / "bundle", tmp_path / "checkpoint.tar"
    directory.mkdir()

    def save(env_steps):
        (directory / "weights").write_text(f"{env_steps}".ljust(100_000))
        checkpoint_store.pack(directory, archive, env_steps)
        return archive

    return save


def points(run_id):
    return [(each.step, each.value) for each in mlflow.MlflowClient().get_metric_history(run_id, "m")]


def files(run_id):
    return [
        each.path.removeprefix("checkpoints/") for each in mlflow.MlflowClient().list_artifacts(run_id, "checkpoints")
    ]


@pytest.mark.e2e
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"status": 500, "path": "log-batch", "times": 6}, id="the API fails while /health is well"),
        pytest.param({"status": 503, "path": "/api/", "times": 12}, id="the database is away", marks=pytest.mark.long),
        pytest.param({"status": CLOSE, "path": "log-batch", "times": 4}, id="connections break"),
        pytest.param({"status": 429, "path": "log-batch", "times": 4}, id="too many requests", marks=pytest.mark.long),
    ],
)
def test_a_server_that_fails_delays_metrics_and_loses_none(proxy, fault):
    notices = []
    with tracking.run("train") as run_id:
        found = proxy.fail(**fault)
        with MetricQueue(run_id, notices.append, logs_system_metrics=False) as queue:
            for step in range(30):
                queue.log_metrics({"m": float(step)}, step)
    assert found.times == 0
    assert points(run_id) == [(step, float(step)) for step in range(30)]
    assert len(notices) in {2, 3}, notices  # the third is of a wait that took 5 s
    assert mlflow.get_run(run_id).info.status == "FINISHED"


@pytest.mark.e2e
def test_a_file_that_fails_holds_up_neither_metrics_nor_other_files(proxy, tmp_path):
    for name in ("good.txt", "bad.txt"):
        (tmp_path / name).write_text(name)
    with tracking.run("train") as run_id:
        proxy.fail(500, methods=["PUT"], path=r"bad\.txt")
        queue = MetricQueue(run_id, print, logs_system_metrics=False)
        queue.open()
        for name in ("bad.txt", "good.txt"):
            queue.upload(name, functools.partial(mlflow.MlflowClient().log_artifact, run_id, str(tmp_path / name)))
        queue.log_metrics({"m": 1.0}, 1)
        await_true(lambda: points(run_id), "the metrics arrive")
        await_true(lambda: [each.path for each in mlflow.MlflowClient().list_artifacts(run_id)] == ["good.txt"], "file")
        proxy.repair()
        assert queue.flush(30)
        queue.close()
    assert [each.path for each in mlflow.MlflowClient().list_artifacts(run_id)] == ["bad.txt", "good.txt"]


@pytest.mark.e2e
def test_a_reachable_server_that_fails_for_too_long_after_the_training_ends_it_with_one_line(proxy, monkeypatch):
    monkeypatch.setattr(metric_queue, "LONGEST_FAILURE_S", -1.0)
    message = r"1 metrics and files .* \(status 500\)"
    with tracking.run("train") as run_id, proxy.failing(500, path="log-batch"):
        queue = MetricQueue(run_id, print, logs_system_metrics=False)
        with pytest.raises(TrackingFailed, match=message), queue:
            queue.log_metrics({"m": 1.0}, 1)


def test_metrics_that_are_refused_end_a_training_with_one_line(proxy):
    with tracking.run("train") as run_id, proxy.failing(403, path="log-batch"):
        queue = MetricQueue(run_id, print, logs_system_metrics=False)
        with pytest.raises(TrackingRefused) as caught, queue:
            queue.log_metrics({"m": 1.0}, 1)
    assert str(caught.value).startswith(f"MLflow does not accept the metrics of run {run_id} (status 403")


def test_a_server_that_comes_back_with_other_credentials_is_not_waited_for(proxy, monkeypatch):
    monkeypatch.setattr(outages, "RETRY_INTERVAL_S", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    proxy.fail(503, times=1)
    proxy.fail(401)
    with pytest.raises(TrackingRefused, match=r"does not accept metrics \(status 401"):
        retry_through_outages(lambda: mlflow.get_run("0" * 32), print, "metrics")


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_store_that_refuses_deletions_is_reported_once_and_keeps_all_checkpoints(proxy, save, status):
    notices = []
    proxy.fail(status, methods=["DELETE"])
    with tracking.run("train") as run_id, MetricQueue(run_id, notices.append, logs_system_metrics=False) as queue:
        for env_steps in (1000, 2000, 3000, 4000):
            archive = save(env_steps)
            send = functools.partial(checkpoint_store.upload, run_id, archive, notices.append)
            queue.upload("checkpoint", send)
            assert queue.flush(30)
    (notice,) = notices
    assert notice == f"The artifact store does not delete old checkpoints (status {status}), so all of this run stay."
    assert len(files(run_id)) == 8
    assert sum(request.startswith("DELETE") for request in proxy.requests) == 1


@pytest.mark.e2e
def test_old_checkpoints_are_deleted_once_a_store_that_failed_works_again(proxy, save):
    with tracking.run("train") as run_id, bounded_retries():
        for env_steps in (1000, 2000, 3000):
            with proxy.failing(503, methods=["DELETE"]):
                checkpoint_store.upload(run_id, save(env_steps), print)
        assert len(files(run_id)) == 6
        checkpoint_store.upload(run_id, save(4000), print)
    assert files(run_id) == [f"00000000{steps}.{suffix}" for steps in (3000, 4000) for suffix in ("json", "tar")]


def test_a_checkpoint_that_is_too_large_for_a_proxy_is_reported_once_and_kept_in_the_working_directory(
    proxy, save, tmp_path
):
    notices = []
    proxy.fail(413, methods=["PUT"], over_bytes=50_000)
    with tracking.run("train") as run_id, MetricQueue(run_id, notices.append, logs_system_metrics=False) as queue:
        for env_steps in (1000, 2000):
            archive = save(env_steps)
            send = functools.partial(checkpoint_store.upload, run_id, archive, notices.append)
            queue.upload("checkpoint", send)
            queue.log_metrics({"m": 1.0}, env_steps)
            assert queue.flush(30)
    (notice,) = notices
    size = archive.stat().st_size
    assert notice.startswith(f"MLflow does not accept the checkpoint of 1,000 steps, {size:,} bytes (status 413: ")
    assert notice.endswith("registering the policy is an upload, too); training continues without it.")
    kept = tmp_path / f"checkpoint-{run_id}.tar"
    where = checkpoint_store.secure(run_id, archive)
    assert where == f"of 2,000 steps, was not uploaded. Resume where it is: {kept}"
    assert checkpoint_store.restore_newest(run_id, tmp_path / "back") == 2000


def test_a_kept_checkpoint_that_is_older_than_the_newest_in_mlflow_is_ignored(proxy, save, tmp_path):
    with tracking.run("train") as run_id:
        with proxy.failing(413, methods=["PUT"]), pytest.raises(TrackingRefused):
            checkpoint_store.upload(run_id, save(1000), print)
        checkpoint_store.secure(run_id, save(1000))
        archive = save(2000)
        checkpoint_store.upload(run_id, archive, print)
        assert checkpoint_store.secure(run_id, archive) == "of 2,000 steps, is in MLflow"
    assert checkpoint_store.restore_newest(run_id, tmp_path / "back") == 2000


@pytest.mark.e2e
def test_the_end_of_a_run_waits_for_a_server_that_fails(proxy, monkeypatch):
    monkeypatch.setattr(outages, "RETRY_INTERVAL_S", 0.1)
    notices = []
    with tracking.run("train", notify=notices.append) as run_id:
        proxy.fail(503, path="runs/update", times=5)
    assert mlflow.get_run(run_id).info.status == "FINISHED"
    assert notices[-1] == "The tracking server works again."


def of_botocore(error):
    """The error as the client of S3 raises it."""
    type(error).__module__ = "botocore.exceptions"
    return error


UNAVAILABLE = MlflowException("(psycopg2.OperationalError) connection refused", TEMPORARILY_UNAVAILABLE)


@pytest.mark.parametrize(
    ("uri", "error", "reachable", "state", "end"),
    [
        ("http://h", requests.ConnectionError(), False, "The tracking server is unreachable", "is reachable again"),
        (
            *("http://h", UNAVAILABLE, False),
            "The tracking server answers with errors (status 503: (psycopg2.OperationalError) connection refused)",
            "works again",
        ),
        ("postgresql://h", UNAVAILABLE, False, "MLflow's database is unreachable", "is reachable again"),
        (
            *("http://h", of_botocore(EndpointConnectionError()), True),
            *("The artifact store is unreachable", "is reachable again"),
        ),
        (
            *("http://h", of_botocore(ClientError(500)), True),
            *("The artifact store answers with errors (status 500)", "works again"),
        ),
    ],
)
def test_the_notice_names_what_fails(monkeypatch, uri, error, reachable, state, end):
    monkeypatch.setattr(outages, "is_reachable", lambda: reachable)
    monkeypatch.setattr(outages, "tracking_uri", lambda: uri)
    notices = []
    outage = outages.Outage(notices.append)
    outage.failed(error)
    outage.ended()
    name = state.partition(" is ")[0].partition(" answers ")[0]
    assert notices == [f"{state}; metrics and files wait in memory.", f"{name} {end}."]
