"""Starts the process that holds a session's environment, and exchanges messages with it.

It runs in a sandbox, with no environment variables but those that configure libraries. It can write in one directory,
which is deleted when it ends.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from serving.play.errors import EnvironmentFailed
from serving.policy.spaces import Json
from serving.processes import untrusted_environment

ENDED = "its process ended"
"""The reason of EnvironmentFailed if the process ended without an error message."""

MAX_RESPONSE = 64 << 20
"""The most characters of a response, so that an environment cannot fill the replica's memory."""


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
        self._directory: tempfile.TemporaryDirectory[str] | None = None
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
                self._directory = tempfile.TemporaryDirectory(prefix="play-", ignore_cleanup_errors=True)
                self._process = _start(self._modules, self._directory.name)
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
            self._directory.cleanup()


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
