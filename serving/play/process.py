"""Starts the process that holds a session's environment, and exchanges messages with it.

It runs in a sandbox, with no environment variables but those that configure libraries. It can write in one directory,
which is deleted when it ends, or by the next session on this machine if the replica was killed.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serving.play.errors import EnvironmentFailed
from serving.policy.spaces import Json
from serving.processes import untrusted_environment

ENDED = "its process ended"
"""The reason of EnvironmentFailed if the process ended without an error message."""

MAX_RESPONSE = 64 << 20
"""The most characters of a response, so that an environment cannot fill the replica's memory."""

PREFIX = "policy-play-"
"""The begin of the names of directories in TMPDIR."""


class WritableDirectory:
    """A directory in TMPDIR. It is locked as long as this process lives, which tells it from abandoned ones."""

    def __init__(self) -> None:
        _remove_abandoned()
        hidden = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
        # Child processes do not inherit the descriptor, so that they do not keep the lock.
        self._lock = os.open(hidden, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks, where nobody removes it either
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = hidden.rename(hidden.with_name(hidden.name.removeprefix(".")))  # only a locked one has the prefix

    def remove(self) -> None:
        """Delete the directory with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


class EnvironmentProcess:
    """A child process with one environment. It starts with the first request, and ends with this process.

    A thread waits for the responses, so that an environment that hangs does not block the event loop.

    Args:
        modules: modules outside of Gymnasium that the environment needs.
    """

    def __init__(self, modules: tuple[str, ...] = ()) -> None:
        self._modules = modules
        self._thread = ThreadPoolExecutor(1, "play")
        self._process: subprocess.Popen[str] | None = None
        self._directory: WritableDirectory | None = None
        self._closed = False

    async def request(self, message: dict[str, Json]) -> dict[str, Json]:
        """Send one message and return its response. Raises EnvironmentFailed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._exchange, message)

    def close(self) -> None:
        """Kill the process, even during a request."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        self._thread.submit(self._reap)
        self._thread.shutdown(wait=False)

    def _exchange(self, message: dict[str, Json]) -> dict[str, Json]:
        try:
            if self._process is None:
                self._directory = WritableDirectory()
                self._process = _start(self._modules, str(self._directory.path))
            if self._closed:
                raise EnvironmentFailed(ENDED)
            assert self._process.stdin is not None  # noqa: S101 - for mypy: both are pipes
            assert self._process.stdout is not None  # noqa: S101
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            response: dict[str, Json] = json.loads(self._process.stdout.readline(MAX_RESPONSE))
        except (OSError, ValueError) as error:
            raise EnvironmentFailed(ENDED) from error
        if not isinstance(response, dict):
            raise EnvironmentFailed(ENDED)  # nothing that the process may do is trusted
        if "error" in response:
            raise EnvironmentFailed(response["error"])
        return response

    def _reap(self) -> None:
        if self._process is not None:
            self._process.kill()
            # Closing stdin fails if it holds a message that the process has not read.
            with contextlib.suppress(OSError), self._process:
                pass
        if self._directory is not None:
            self._directory.remove()


def _remove_abandoned() -> None:
    """Remove the directories of replicas that were killed."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # it is another user's, or its session runs
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_uid == os.geteuid():
                    shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(descriptor)


def _start(modules: tuple[str, ...], directory: str) -> "subprocess.Popen[str]":
    hidden = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    own = {"TMPDIR": directory, "HOME": directory, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "serving.play.environment", *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=untrusted_environment(**hidden, **own),
    )
