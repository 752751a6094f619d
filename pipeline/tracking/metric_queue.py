"""Sends metrics and files to an MLflow run from a thread, in order, through outages of the tracking server."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Self

import mlflow
from mlflow.entities import Metric

from pipeline.tracking.system_metrics import SystemMetrics
from serving.errors import ServingError
from serving.registry.tracking import bounded_retries, check_tracking_server

Notify = Callable[[str], None]
"""Shows one line to the user."""

#: MLflow's limit of metrics in one request.
_BATCH = 1000

#: Seconds between requests, so that each carries the metrics of many iterations.
_INTERVAL_S = 1.0

#: Seconds between probes of a tracking server that is unreachable.
_PROBE_INTERVAL_S = 1.0

#: Seconds after which `flush` shows what it waits for.
_NOTICE_AFTER_S = 5.0

#: Seconds between measurements of the machine.
_SYSTEM_INTERVAL_S = 5.0


class MetricQueue:
    """A queue of metrics and files that a thread sends to one MLflow run; a context manager.

    Metrics are sent in order, and none is lost: while the tracking server is unreachable, they wait in memory. An
    upload replaces a waiting one of the same key. Without an exception, the end of the block waits until everything is
    sent.

    Attributes:
        run_id: The MLflow run.
        cpu_s: Seconds of processor time that sending has taken.

    Args:
        run_id: The MLflow run.
        notify: Shows when the tracking server becomes unreachable and reachable again.
        logs_system_metrics: Whether the load of the machine is logged every 5 seconds.
    """

    def __init__(self, run_id: str, notify: Notify, *, logs_system_metrics: bool = True) -> None:
        self.run_id = run_id
        self.cpu_s = 0.0
        self._notify = notify
        self._system_metrics: SystemMetrics | None = None
        if logs_system_metrics:
            try:
                self._system_metrics = SystemMetrics(run_id)
            except Exception as error:  # noqa: BLE001  # as in _measure_system
                self._stop_measuring(error)
        self._metrics: list[Metric] = []
        self._uploads: dict[str, Callable[[], object]] = {}
        self._changed = threading.Condition()
        self._urgent = self._closed = False
        self._error: Exception | None = None
        self._bounded_retries = contextlib.ExitStack()
        self._thread = threading.Thread(target=self._work, name="metric-queue", daemon=True)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        try:
            if error is None:
                self.flush()
        finally:
            self.close()

    def open(self) -> None:
        """Start the thread."""
        # The queue waits for the server itself; MLflow's own retries, up to two minutes apart, would find it late.
        self._bounded_retries.enter_context(bounded_retries())
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; what it has not sent yet is lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=2 * _PROBE_INTERVAL_S)
        self._bounded_retries.close()

    def log_metrics(self, metrics: Mapping[str, float], step: int, timestamp_ms: int | None = None) -> None:
        """Enqueue the metrics of one step.

        Args:
            metrics: Values by name.
            step: Environment steps since training began.
            timestamp_ms: When they were measured, in milliseconds since 1970; now if not given.

        Raises:
            Exception: If an earlier metric or file could not be sent for another reason than an outage.
        """
        now = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
        self._raise_error()
        with self._changed:
            self._metrics += [Metric(name, value, now, step) for name, value in metrics.items()]
            self._changed.notify_all()

    def upload(self, key: str, send: Callable[[], object]) -> None:
        """Enqueue an upload, which replaces a waiting one of the same key; `send` is called again after an outage.

        Raises:
            Exception: As `log_metrics`.
        """
        self._raise_error()
        with self._changed:
            self._uploads[key] = send
            self._changed.notify_all()

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is sent.

        Args:
            timeout_s: The longest wait in seconds; None waits without limit.

        Returns:
            Whether everything is sent.

        Raises:
            Exception: As `log_metrics`.
        """
        with self._changed:
            self._urgent = True
            self._changed.notify_all()
            before_notice_s = _NOTICE_AFTER_S if timeout_s is None else min(_NOTICE_AFTER_S, timeout_s)
            done = self._changed.wait_for(self._is_done, before_notice_s)
            if not done:
                self._notify(f"Waiting for the tracking server: {self._waiting()} metrics and files are not sent yet.")
                done = self._changed.wait_for(self._is_done, timeout_s and timeout_s - before_notice_s)
            self._urgent = False
        self._raise_error()
        return bool(done)

    def _is_done(self) -> bool:
        return self._error is not None or not self._waiting()

    def _waiting(self) -> int:
        return len(self._metrics) + len(self._uploads)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        measurement_due = time.monotonic() + _SYSTEM_INTERVAL_S
        try:
            while self._await_work(measurement_due):
                if time.monotonic() >= measurement_due:
                    measurement_due = time.monotonic() + _SYSTEM_INTERVAL_S
                    self._measure_system()
                self._send_all()
        except Exception as error:  # noqa: BLE001  # the training thread raises it
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _await_work(self, measurement_due: float) -> bool:
        """Wait until something is due and the interval between requests is over; return False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._urgent, _INTERVAL_S)
            until_due = measurement_due - time.monotonic()
            if not self._waiting():
                self._changed.wait_for(lambda: self._closed or self._waiting(), max(0.0, until_due))
            return not self._closed

    def _measure_system(self) -> None:
        if self._system_metrics is None:
            return
        now = time.time()
        try:
            metrics = self._system_metrics.measure()
        except Exception as error:  # noqa: BLE001  # psutil fails in many ways, and training does not depend on it
            self._stop_measuring(error)
            return
        with self._changed:
            self._metrics += [Metric(name, value, int(now * 1000), int(now)) for name, value in metrics.items()]

    def _stop_measuring(self, error: Exception) -> None:
        self._notify(f"The load of this machine is not logged: {type(error).__name__}: {error}")
        self._system_metrics = None

    def _send_all(self) -> None:
        begun = time.thread_time()
        while batch := self._metrics[:_BATCH]:
            send_batch = functools.partial(mlflow.MlflowClient().log_batch, self.run_id, metrics=batch)
            retry_through_outages(send_batch, self._notify)
            with self._changed:
                del self._metrics[: len(batch)]
        while self._uploads:
            with self._changed:
                key, send = next(iter(self._uploads.items()))
            retry_through_outages(send, self._notify)
            with self._changed:
                if self._uploads[key] is send:
                    del self._uploads[key]
        self.cpu_s += time.thread_time() - begun
        with self._changed:
            self._changed.notify_all()


def retry_through_outages(send: Callable[[], object], notify: Notify) -> None:
    """Call a function that sends something to MLflow until it succeeds, waiting while the server is unreachable.

    Raises:
        Exception: What `send` raises twice although the server is reachable.
    """
    failed = False
    while True:
        try:
            send()
        except Exception:
            if failed and _is_reachable():
                raise
            failed = True
            _await_server(notify)
        else:
            return


def _await_server(notify: Notify) -> None:
    if _is_reachable():
        return
    notify("The tracking server is unreachable; metrics and files wait in memory.")
    while not _is_reachable():
        time.sleep(_PROBE_INTERVAL_S)
    notify("The tracking server is reachable again.")


def _is_reachable() -> bool:
    try:
        check_tracking_server()
    except ServingError:
        return False
    return True
