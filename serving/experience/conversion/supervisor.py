"""Keeps one converter running on a node, whichever replicas it has."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from serving.processes import child_environment
from serving.registry.node.file_lock import FileLock
from serving.telemetry.logs import LogFormat

logger = logging.getLogger(__name__)

LOCK_FILE = "converter.lock"
"""The replica that holds this lock in the journal starts the converter. The kernel releases it with the replica."""

FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 60.0
"""The pause before a process that has ended is started again. It doubles each time, up to the longest."""
STOPPING_S = 4.0
"""The time in which a process that is stopped converts what is complete."""
STABLE_S = 60.0
"""A process that ran this long has not failed at its start: the pause is the first again."""


class ConverterSupervisor:
    """Starts the converter, and starts it again when it has ended. Each replica of the node has one.

    One thread of the replica calls `tick` every second, for as long as the replica lives: the kernel ends the converter
    with the thread that has started it. Another replica's supervisor then takes over.

    Args:
        journal: the directory of the journal, which all replicas of an application on the node share.
        uri: the store of experience.
        cache: the directory of the node's bundle cache.
        log_format: the format of the converter's log, which goes where that of the replica goes.
    """

    def __init__(self, journal: Path, uri: str, cache: Path, log_format: LogFormat = "text") -> None:
        self._command = [
            *(sys.executable, "-m", "serving.experience.conversion", "--journal", str(journal), "--uri", uri),
            *("--cache", str(cache), "--log-format", log_format, "--parent", str(os.getpid())),
        ]
        self._lock = FileLock(journal / LOCK_FILE)
        self._process: subprocess.Popen[bytes] | None = None
        self._started, self._next_start, self._pause = 0.0, 0.0, FIRST_PAUSE_S
        self._has_warned = False

    @property
    def pid(self) -> int | None:
        """The converter's process, None if this replica does not run it."""
        return None if self._process is None else self._process.pid

    def tick(self) -> None:
        """Start the converter if none runs on this node, and see whether it has ended."""
        if not self._acquire():
            return
        if self._process is not None and (status := self._process.poll()) is not None:
            self._note_end(status)
        if self._process is None and time.monotonic() >= self._next_start:
            self._start()

    def stop(self) -> None:
        """Have the converter convert what is complete, for STOPPING_S at most, and end it.

        Close the journal before, so that its last segment is complete. Segments that are left are converted by the next
        replica of the application on this node.
        """
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOPPING_S + 1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._lock.release()

    def _acquire(self) -> bool:
        try:
            return self._lock.acquire()
        except OSError as error:
            if not self._has_warned:
                logger.warning("no decision is converted on this node: the journal cannot be locked (%s)", error)
            self._has_warned = True
            return False

    def _start(self) -> None:
        # A thread pool for matrices would take the cores from the replicas.
        environment = child_environment(OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="2")
        try:
            self._process = subprocess.Popen(
                self._command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            self._wait(f"the converter cannot be started: {error}")
            return
        self._started = time.monotonic()

    def _note_end(self, status: int) -> None:
        self._process = None
        if time.monotonic() - self._started >= STABLE_S:
            self._pause = FIRST_PAUSE_S
        self._wait(f"the converter of experience ended with status {status}")

    def _wait(self, reason: str) -> None:
        logger.warning("%s; it is started again in %.0f s", reason, self._pause)
        self._next_start = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, MAX_PAUSE_S)
