"""Stops calls of ONNX Runtime that take too long: a graph may loop forever on one observation in a thousand.

A thread looks at the calls in progress and sets the flag of a call that ONNX Runtime tests between two nodes of the
graph, also those of a loop's body. A single operator cannot be stopped. A call costs 0.5 microseconds more where calls
follow each other at once, and some 10 between two requests, when caches are cold.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any
from weakref import WeakSet

from serving.policy.errors import InferenceTimeout, PolicyFailed, PolicyFault

Run = Callable[[Sequence[str], dict[str, Any]], list[Any]]
"""Computes the named outputs of a graph for inputs by name. Raises PolicyFailed and InferenceTimeout."""

LOOK_S = 0.05
"""The pause between two looks at the calls in progress."""

COMPUTED = 0.75
"""The part of the time limit for which the thread of a call must have computed. A stopped process does not compute, and
one among many on a busy machine does so for a part of the time: then the policy is not at fault."""


@dataclass(frozen=True)
class Guard:
    """How the calls of one policy are guarded."""

    timeout_s: float
    """The time limit of one call."""
    label: str = "policy"
    """The name of the policy's frame in tracebacks, an identifier. The dump of a crash names the version by it."""


def unguarded(run: Any) -> Run:
    """Return a function that calls the `run` of a session, without a time limit."""

    def call(outputs: Sequence[str], inputs: dict[str, Any]) -> list[Any]:
        try:
            return run(outputs, inputs)  # type: ignore[no-any-return]
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise PolicyFailed(f"{type(error).__name__}: {error}") from error

    return call


def guarded(run: Any, guard: Guard) -> Run:
    """Return a function that calls the `run` of a session, and is stopped when it takes too long."""
    from onnxruntime import RunOptions

    dog, timeout_s = watchdog(), guard.timeout_s
    local = dog.local

    def call(outputs: Sequence[str], inputs: dict[str, Any]) -> list[Any]:
        try:
            thread = local.thread
        except AttributeError:
            thread = dog.register()
        options = RunOptions()
        thread.call = options, timeout_s, perf_counter()
        try:
            return run(outputs, inputs, options)  # type: ignore[no-any-return]
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise _fault(error, timed_out=options.terminate, timeout_s=timeout_s) from error
        finally:
            thread.call = None

    call.__code__ = call.__code__.replace(co_name=guard.label)
    return call


def _fault(error: Exception, *, timed_out: bool, timeout_s: float) -> PolicyFault:
    return InferenceTimeout(timeout_s) if timed_out else PolicyFailed(f"{type(error).__name__}: {error}")


class CallingThread:
    """A thread that calls policies, and its call in progress."""

    def __init__(self) -> None:
        """It must be made in the thread itself."""
        self.call: tuple[Any, float, float] | None = None
        """The options, the time limit, and the `perf_counter` time of the begin; None between two calls."""
        self._clock = _clock_of_this_thread()
        self._seen: tuple[Any, float, float] | None = None
        self._computed_before = 0.0
        """The CPU time that the thread had used when the watchdog first saw the call."""

    def check(self, now: float) -> None:
        """Stop the call in progress if it has taken too long."""
        call = self.call
        if call is None:
            return
        options, timeout_s, began = call
        if call is not self._seen:
            self._seen, self._computed_before = call, self._computed_s()
        elif now - began >= timeout_s and self._computed_s() - self._computed_before >= COMPUTED * timeout_s:
            options.terminate = True

    def _computed_s(self) -> float:
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # the thread has just ended
            return 0.0


def _clock_of_this_thread() -> int:
    """Return the clock of the thread's CPU time; macOS has only that of the process."""
    if hasattr(time, "pthread_getcpuclockid"):
        return time.pthread_getcpuclockid(threading.get_ident())
    return time.CLOCK_PROCESS_CPUTIME_ID


class Watchdog:
    """Watches the calls of all threads of this process."""

    def __init__(self) -> None:
        self.local = threading.local()
        """Its attribute `thread` is the calling thread's CallingThread, once it is registered."""
        self._threads: WeakSet[CallingThread] = WeakSet()
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def register(self) -> CallingThread:
        """Watch the thread that calls this, until it ends."""
        self.local.thread = thread = CallingThread()
        with self._lock:
            self._threads.add(thread)
        return thread

    def _watch(self) -> None:
        while True:
            time.sleep(LOOK_S)
            with self._lock:
                threads = list(self._threads)
            now = perf_counter()
            for thread in threads:
                thread.check(now)
            del threads  # the last reference to a thread that has ended


@cache
def watchdog() -> Watchdog:
    """Return the watchdog of this process, which the first call starts."""
    return Watchdog()
