"""A second process, on another core, for what can be done beside training: half of each evaluation, and the export."""

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Self

from pipeline.config import TrainConfig
from pipeline.garbage import collect_rarely


class Call:
    """A call that the side process makes; what it could not do, or failed at, is done here, when the result is wanted.

    Args:
        function: To be called.
        arguments: With these.
        connection: Where the side process answers; None if it was not asked.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], connection: Connection | None) -> None:
        self._function = function
        self._arguments = arguments
        self._connection = connection

    @property
    def is_answered(self) -> bool:
        """Whether the result need not be waited for."""
        return self._connection is None or self._connection.poll()

    def result(self) -> Any:
        """What the function returned; raises what it raises."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(EOFError, OSError):
                succeeded, value = pickle.loads(connection.recv_bytes())  # noqa: S301  # our own
                if succeeded:
                    return value
        return self._function(*self._arguments)

    @property
    def is_over(self) -> bool:
        """Whether the side process has nothing to do with it."""
        return self._connection is None


class SideProcess:
    """The process; a context manager, with which it ends. It also ends with the program, however that ends.

    Only a training in one process has one: with Ray's processes beside it, no core is idle.
    """

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._process: SpawnProcess | None = None
        self._latest: Call | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()

    def begin(self, config: TrainConfig) -> None:
        """Start it, without waiting for its imports, if there is a core for it."""
        if not config.is_one_process or os.cpu_count() == 1:
            return
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_answer, args=(theirs, config.torch_num_threads), daemon=True)
        # Ctrl-C goes to all processes of a terminal, and means the one that trains. A mask is inherited.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    @property
    def has_begun(self) -> bool:
        """Whether it was started, be it alive or not."""
        return self._process is not None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Call:
        """Ask for a call, unless an earlier one is going on there."""
        is_busy = self._latest is not None and not self._latest.is_over
        if is_busy or not self._ask(function, arguments):
            return Call(function, arguments, None)
        self._latest = Call(function, arguments, self._connection)
        return self._latest

    def _ask(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
        """Send the request; returns whether there is somebody who takes it."""
        if self._connection is None:
            return False
        from ray import cloudpickle

        # Plain pickling would move the tensors of a policy, which is in training, to shared memory.
        request = cloudpickle.dumps((function, arguments))
        try:
            self._connection.send_bytes(request)
        except OSError:
            return False
        return True


def _answer(connection: Connection, num_threads: int) -> None:
    """What the process does: one request after another, until the program is gone."""
    collect_rarely()
    import torch

    from pipeline.bundle import assemble as bundle  # noqa: F401  # imported while the program imports: it will ask for them
    from pipeline.bundle import preflight as export_trial  # noqa: F401  # imported while the program imports: it will ask for them

    torch.set_num_threads(num_threads)
    with suppress(EOFError, OSError):
        while True:
            connection.send_bytes(_attempted(connection.recv_bytes()))


def _attempted(request: bytes) -> bytes:
    """Whether a call succeeded, and with what."""
    try:
        function, arguments = pickle.loads(request)  # noqa: S301  # our own
        return pickle.dumps((True, function(*arguments)))
    except Exception:  # noqa: BLE001  # the one who asked tries for himself, and sees what is raised
        return pickle.dumps((False, None))
