"""The replica's end of the process that holds a session's environment."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from serving.play.errors import EnvironmentFailed
from serving.policy.spaces import Json

ENDED = "its process ended"


class EnvironmentProcess:
    """Starts with the first question, and dies with whoever holds this.

    A thread of its own waits for the answers: an environment that hangs holds up nothing else.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "play")
        self._process: subprocess.Popen[str] | None = None
        self._closed = False

    async def ask(self, question: dict[str, Json]) -> dict[str, Json]:
        """Send one line and return the answer to it. Raises EnvironmentFailed."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._exchange, question)

    def close(self) -> None:
        """Kill the process, whatever it is doing."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        self._thread.submit(self._reap)
        self._thread.shutdown(wait=False)

    def _exchange(self, question: dict[str, Json]) -> dict[str, Json]:
        if self._process is None:
            self._process = _start()
        if self._closed:
            raise EnvironmentFailed(ENDED)
        assert self._process.stdin is not None  # noqa: S101 - for mypy: both are pipes
        assert self._process.stdout is not None  # noqa: S101
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Json] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise EnvironmentFailed(ENDED) from error
        if "error" in answer:
            raise EnvironmentFailed(answer["error"])
        return answer

    def _reap(self) -> None:
        if self._process is not None:
            self._process.kill()
            # The pipe may hold a line that nobody took.
            with contextlib.suppress(OSError), self._process:
                pass


def _start() -> "subprocess.Popen[str]":
    # Whatever this process can import, the environment's may: it names modules, such as `module:Id`.
    places = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
    hidden = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "serving.play.environment"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **hidden, "PYTHONPATH": os.pathsep.join(places), "OPENBLAS_NUM_THREADS": "1"},
    )
