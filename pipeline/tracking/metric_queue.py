"""What a run sends to MLflow while training: in order, from a thread of its own, through outages of the server."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Self

import mlflow
import psutil
from mlflow.entities import Metric

from pipeline.tracking import retries
from serving.errors import ServingError
from serving.registry.registry import check_tracking_server

Say = Callable[[str], None]

#: MLflow's limit of metrics in one request.
_BATCH = 1000

#: Seconds between requests, so that each carries the metrics of many iterations.
_INTERVAL_S = 1.0

#: Seconds between looks at a server that is away.
_AWAY_POLL_S = 1.0

#: Seconds of waiting after which it is said what is waited for.
_PATIENCE_S = 5.0

#: Seconds between samples of what the machine is busy with.
_SYSTEM_INTERVAL_S = 5.0


class Outbox:
    """Metrics and files on their way to one MLflow run.

    Metrics are sent in order, and none is lost: while the tracking server is away they wait here. Of files under one
    key only the newest waits. A context manager; leaving it without an exception waits until all is sent.

    Attributes:
        run_id: Of the run.
        busy_s: Seconds of processor time that sending has taken.

    Args:
        run_id: Of the run.
        say: Is told when the server goes away and when it is back.
        samples_system: Whether what the machine is busy with is logged too.
    """

    def __init__(self, run_id: str, say: Say, *, samples_system: bool = True) -> None:
        self.run_id = run_id
        self._samples_system = samples_system
        self._say = say
        self._metrics: list[Metric] = []
        self._files: dict[str, Callable[[], object]] = {}
        self._changed = threading.Condition()
        self._urgent = self._closed = False
        self._error: Exception | None = None
        self._few_retries = contextlib.ExitStack()
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self.busy_s = 0.0

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
        """Begin to send."""
        # An outage is waited out here; MLflow's own retries, up to two minutes apart, would notice its end late.
        self._few_retries.enter_context(retries.few())
        self._thread.start()

    def close(self) -> None:
        """Send nothing any more; what was not sent is lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=2 * _AWAY_POLL_S)
        self._few_retries.close()

    def metrics(self, metrics: Mapping[str, float], step: int, timestamp_ms: int | None = None) -> None:
        """Send the metrics of one step (environment steps since training began), measured now or at a time."""
        now = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
        self._raise_error()
        with self._changed:
            self._metrics += [Metric(name, value, now, step) for name, value in metrics.items()]
            self._changed.notify_all()

    def file(self, key: str, send: Callable[[], object]) -> None:
        """Call `send` when its turn comes, in the place of an earlier one of this key that still waits."""
        self._raise_error()
        with self._changed:
            self._files[key] = send
            self._changed.notify_all()

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all is sent, or for so long; returns whether all is."""
        with self._changed:
            self._urgent = True
            self._changed.notify_all()
            if not self._changed.wait_for(self._is_done, _PATIENCE_S):
                self._say(f"Waiting for the tracking server: {self._waiting()} metrics and files are not sent yet.")
            done = self._changed.wait_for(self._is_done, timeout_s)
            self._urgent = False
        self._raise_error()
        return bool(done)

    def _is_done(self) -> bool:
        return self._error is not None or not self._waiting()

    def _waiting(self) -> int:
        return len(self._metrics) + len(self._files)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        system_due = time.monotonic() + _SYSTEM_INTERVAL_S
        psutil.cpu_percent()  # the first call only begins the measurement
        try:
            while self._await_work(system_due):
                if time.monotonic() >= system_due:
                    system_due = time.monotonic() + _SYSTEM_INTERVAL_S
                    self._add_system_metrics()
                self._send_all()
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to the thread that trains
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _await_work(self, system_due: float) -> bool:
        """Wait until there is something to send and it is time; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._urgent, _INTERVAL_S)
            until = system_due - time.monotonic()
            if not self._waiting():
                self._changed.wait_for(lambda: self._closed or self._waiting(), max(0.0, until))
            return not self._closed

    def _add_system_metrics(self) -> None:
        if not self._samples_system:
            return
        now = int(time.time() * 1000)
        with self._changed:
            self._metrics += [Metric(name, value, now, now // 1000) for name, value in _system_metrics().items()]

    def _send_all(self) -> None:
        begun = time.thread_time()
        while batch := self._metrics[:_BATCH]:
            patiently(functools.partial(_client().log_batch, self.run_id, metrics=batch), self._say)
            with self._changed:
                del self._metrics[: len(batch)]
        while self._files:
            key, send = next(iter(self._files.items()))
            patiently(send, self._say)
            with self._changed:
                if self._files[key] is send:
                    del self._files[key]
        self.busy_s += time.thread_time() - begun
        with self._changed:
            self._changed.notify_all()


def patiently(send: Callable[[], object], say: Say) -> None:
    """Call `send`, which may be repeated, until it succeeds or fails though the tracking server is there."""
    failed = False
    while True:
        try:
            send()
        except Exception:
            if failed and _is_there():
                raise
            failed = True
            _await_server(say)
        else:
            return


def _await_server(say: Say) -> None:
    if _is_there():
        return
    say("The tracking server is away; what is logged waits for it.")
    while not _is_there():
        time.sleep(_AWAY_POLL_S)
    say("The tracking server is back.")


def _is_there() -> bool:
    try:
        check_tracking_server()
    except ServingError:
        return False
    return True


def _system_metrics() -> dict[str, float]:
    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_usage_megabytes": psutil.Process().memory_info().rss / 1e6,
    }


def _client() -> mlflow.MlflowClient:
    return mlflow.MlflowClient()
