"""Runs work beside training in a second process: half of each evaluation, the export and the recording."""

import functools
import gc
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from pipeline.config import TrainConfig
from serving.processes import available_cpus

#: A call that the worker has not finished after this time runs in this process.
_TIMEOUT_S = 600.0


class _PendingCall(Future[Any]):
    """A pending call. If the worker is busy, dead, late or failed, `result()` runs the function in this process."""

    def __init__(self, function: Callable[[], Any], *, is_optional: bool) -> None:
        super().__init__()
        self._run_here = functools.cache(function)
        self._is_optional = is_optional
        self.in_worker: Future[Any] | None = None

    def done(self) -> bool:
        """Return whether `result()` returns without waiting for the worker."""
        return self.in_worker is None or self.in_worker.done()

    def result(self, timeout: float | None = _TIMEOUT_S) -> Any:
        """Wait at most `timeout` seconds for the worker; return what the function returns, or raise what it raises."""
        if self.in_worker is not None:
            try:
                return self.in_worker.result(timeout)
            except Exception:  # if the function itself raised, it raises the same in this process
                if self._is_optional:
                    raise
            self.in_worker = None
        return self._run_here()


class WorkerProcess(Executor):
    """An executor with one worker process, or with none, where every call runs in this process.

    Environment runners and learners wait during evaluations, so a worker starts beside them, too. On one core none
    starts. The worker ends when the executor is shut down and when this process dies, however it dies.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._latest: Future[Any] | None = None

    @property
    def is_started(self) -> bool:
        """Whether a worker was started, even if it has died since."""
        return self._pool is not None

    def start(self, config: TrainConfig) -> None:
        """Start the worker without waiting for its imports, unless there is only one core."""
        if available_cpus() == 1:
            return
        context = multiprocessing.get_context("spawn")
        worker_end, self._parent_end = context.Pipe(duplex=False)
        # If this process is killed, multiprocessing's resource tracker warns about the pool's semaphores.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
        self._pool = ProcessPoolExecutor(1, context, _initialize, (worker_end, config.torch_num_threads))
        # A terminal sends Ctrl-C to every process of its group. The worker inherits the mask, so it ignores SIGINT.
        others = multiprocessing.active_children()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._pool.submit(os.getpid)  # the first call starts the process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._processes = [each for each in multiprocessing.active_children() if each not in others]
        worker_end.close()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in the worker if it is idle, or else in this process when the result is needed."""
        return self._submit(functools.partial(fn, *args, **kwargs), is_optional=False)

    def submit_optional(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run a function as `submit` does, but not in this process once it has begun in the worker.

        `result()` raises BrokenExecutor if it ended the worker, and TimeoutError if it did not return in time.
        """
        return self._submit(functools.partial(fn, *args), is_optional=True)

    def _submit(self, call: Callable[[], Any], *, is_optional: bool) -> _PendingCall:
        pending = _PendingCall(call, is_optional=is_optional)
        if self._pool is not None and (self._latest is None or self._latest.done()):
            from ray import cloudpickle

            with suppress(RuntimeError):  # the worker has died
                # Plain pickling would move the tensors of a policy in training to shared memory.
                self._latest = pending.in_worker = self._pool.submit(_run, cloudpickle.dumps(call))
        return pending

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # the base class's signature
        """End the worker at once, whatever it is computing."""
        if self._pool is not None:
            for process in self._processes:
                process.kill()
            self._parent_end.close()
            self._pool.shutdown(wait, cancel_futures=cancel_futures)


def _initialize(worker_end: Connection, num_threads: int) -> None:
    """Prepare the worker: it exits when the parent's end of the pipe closes, and imports what its calls will need."""
    gc.set_threshold(100_000, 50, 100)  # as in pipeline/__main__.py
    threading.Thread(target=_exit_with_parent, args=(worker_end,), daemon=True).start()
    import torch

    from pipeline.bundle import assemble, preflight  # noqa: F401  # the calls need them

    torch.set_num_threads(num_threads)


def _exit_with_parent(worker_end: Connection) -> None:
    with suppress(EOFError, OSError):
        worker_end.recv_bytes()
    os._exit(0)


def _run(call: bytes) -> Any:
    return pickle.loads(call)()  # noqa: S301  # the parent process pickled it
