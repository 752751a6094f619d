"""Sends metrics and files to an MLflow run from a thread, in order, through outages of the tracking server."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Self

import mlflow
from mlflow.entities import Metric

from pipeline import signals
from pipeline.tracking.errors import TrackingFailed, TrackingRefused
from pipeline.tracking.outages import LONGEST_FAILURE_S, Notify, Outage, is_failure, is_refusal, reason_of
from pipeline.tracking.system_metrics import SystemMetrics
from serving.registry.tracking import bounded_retries

#: MLflow's limit of metrics in one request.
_BATCH = 1000

#: Seconds between requests, so that each carries the metrics of many iterations.
_INTERVAL_S = 1.0

#: Seconds that a command which ends with an exception waits for what is not sent yet, above all its last checkpoint.
LAST_UPLOAD_S = 60.0

#: Seconds after which `flush` shows what it waits for.
_NOTICE_AFTER_S = 5.0

#: Seconds between measurements of the machine.
_SYSTEM_INTERVAL_S = 5.0


class MetricQueue:
    """A queue of metrics and files that a thread sends to one MLflow run; a context manager.

    Metrics are sent in order, and none is lost: while the tracking server is unreachable or fails, they wait in memory.
    An upload replaces a waiting one of the same key, and waits for neither metrics nor other uploads that fail. If it
    is refused, one line says so, and it is dropped.

    The end of the block waits until everything is sent; after an exception it waits for a minute at most.

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
        self._refusals: dict[str, str] = {}
        self._outage = Outage(notify)
        self._changed = threading.Condition()
        self._urgent = self._closed = self._has_failed = False
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
            else:
                with contextlib.suppress(Exception):  # the original error matters more
                    self.flush(LAST_UPLOAD_S)
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
        self._thread.join(timeout=2 * _INTERVAL_S)
        self._bounded_retries.close()

    def log_metrics(self, metrics: Mapping[str, float], step: int, timestamp_ms: int | None = None) -> None:
        """Enqueue the metrics of one step.

        Args:
            metrics: Values by name.
            step: Environment steps since training began.
            timestamp_ms: When they were measured, in milliseconds since 1970; now if not given.

        Raises:
            TrackingRefused: If earlier metrics were refused, for example because the run was deleted.
            Exception: If an earlier metric or file could not be sent for another reason than the tracking server.
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
            TrackingFailed: If the tracking server is reachable, and fails for half an hour.
            Interrupted: After a signal, if there is no timeout.
            Exception: As `log_metrics`.
        """
        with self._changed:
            self._outage.begin_to_count()
            self._urgent = True
            self._changed.notify_all()
            before_notice_s = _NOTICE_AFTER_S if timeout_s is None else min(_NOTICE_AFTER_S, timeout_s)
            done = self._changed.wait_for(self._is_done, before_notice_s)
            if not done:
                self._notify(f"Waiting for the tracking server: {self._waiting()} metrics and files are not sent yet.")
            while not done and timeout_s is None:
                signals.check()  # in a deferred block, too, a signal ends a wait without limit
                done = self._changed.wait_for(self._is_done, _INTERVAL_S)
            if not done and timeout_s is not None:
                done = self._changed.wait_for(self._is_done, timeout_s - before_notice_s)
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
            self._changed.wait_for(lambda: self._closed or (self._urgent and not self._has_failed), _INTERVAL_S)
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
        """Try once to send everything; what the server fails to take waits for the next call."""
        begun = time.thread_time()
        if self._outage.is_over():
            self._has_failed = not self._succeeds(self._send_metrics)
            for key in list(self._uploads):
                if not self._outage.is_unreachable and not self._succeeds(functools.partial(self._send_upload, key)):
                    self._has_failed = True
            if not self._has_failed:
                self._outage.ended()
        self.cpu_s += time.thread_time() - begun
        with self._changed:
            self._changed.notify_all()

    def _succeeds(self, send: Callable[[], object]) -> bool:
        """Return whether something was sent, and False if the tracking server fails. Raises other errors."""
        try:
            send()
        except Exception as error:
            self._outage.failed(error)
            if self._urgent and self._outage.failing_s > LONGEST_FAILURE_S:
                what = f"{self._waiting()} metrics and files of run {self.run_id}"
                raise TrackingFailed(what, LONGEST_FAILURE_S, reason_of(error)) from error
            return False
        return True

    def _send_metrics(self) -> None:
        while batch := self._metrics[:_BATCH]:
            try:
                mlflow.MlflowClient().log_batch(self.run_id, metrics=batch)
            except Exception as error:
                if is_refusal(error):
                    raise TrackingRefused(f"the metrics of run {self.run_id}", reason_of(error)) from error
                raise
            with self._changed:
                del self._metrics[: len(batch)]

    def _send_upload(self, key: str) -> None:
        with self._changed:
            send = self._uploads[key]
        what, refusal = f"the {key}", None
        try:
            send()
        except Exception as error:
            # Without the store's disk, as without its permission, training continues.
            if not is_refusal(error) and (is_failure(error) or not isinstance(error, OSError)):
                raise
            what, refusal = error.what if isinstance(error, TrackingRefused) else what, reason_of(error)
        with self._changed:
            if self._uploads[key] is send:
                del self._uploads[key]
            before = self._refusals.pop(key, None)
            if refusal is not None:
                self._refusals[key] = refusal
        if refusal is not None and refusal != before:
            self._notify(f"MLflow does not accept {what} ({refusal}); training continues without it.")
