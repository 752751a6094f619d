"""A server to measure: started, frozen while others are measured, and ended with all its processes."""

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
import requests

from tests.workshop import Workshop

UP_WITHIN_S = 120.0
DOWN_WITHIN_S = 30.0
MIB = 1 << 20


@dataclass(frozen=True)
class Way:
    """Another way to ask a contender for the same."""

    name: str
    url: str
    body: bytes
    json_length: int | None = None
    """How much of the body is JSON, where bytes follow it."""


@dataclass(frozen=True)
class Recipe:
    """How to start a contender, and what to ask it."""

    name: str
    command: tuple[str, ...]
    url: str
    body: bytes
    environment: dict[str, str] = field(default_factory=dict)
    ways: tuple[Way, ...] = ()

    @property
    def all_ways(self) -> tuple[Way, ...]:
        """Its own way, and the others."""
        return Way(self.name, self.url, self.body), *self.ways


class Contender:
    """A running contender. A context manager: on leaving no process of it is left."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.cold_start_s = float("nan")
        """From the command to the first answer."""
        # Short, for Ray's sockets.
        self._directory = Path(tempfile.mkdtemp(prefix="b-", dir="/tmp"))
        self._shop = Workshop(self._directory, {"RAY_TMPDIR": str(self._directory), **recipe.environment})

    def __enter__(self) -> Self:
        start = time.monotonic()
        self._process = self._shop.start(sys.executable, "-m", *self.recipe.command)
        try:
            self._await_answer(start + UP_WITHIN_S)
        except BaseException:
            self.__exit__()
            raise
        self.cold_start_s = time.monotonic() - start
        return self

    def __exit__(self, *exception: object) -> None:
        self.thaw()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(DOWN_WITHIN_S)
        self._shop.end()
        shutil.rmtree(self._directory, ignore_errors=True)

    def freeze(self) -> None:
        """Stop all its processes, so that it takes no time from whoever is measured."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def answers(self) -> bool:
        """Whether a request gets an answer as it should be."""
        try:
            return requests.post(self.recipe.url, self.recipe.body, timeout=5, headers=_JSON).ok
        except requests.RequestException:
            return False

    def processes(self) -> list[psutil.Process]:
        """Return its processes, with all their descendants."""
        return self._shop.processes()

    def replica_memory(self) -> dict[str, float]:
        """Return USS, PSS and RSS of the process that answers, in MiB; of one where there are several."""
        candidates = [each for each in self._shop.processes() if "ServeReplica" in " ".join(each.cmdline())]
        info: Any = (candidates or [psutil.Process(self._process.pid)])[0].memory_full_info()
        return {kind: getattr(info, kind) / MIB for kind in ("uss", "pss", "rss")}

    def _await_answer(self, deadline: float) -> None:
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.recipe.name} does not answer:\n{self._shop.output()[-3000:]}")
            time.sleep(0.02)

    def _signal(self, signum: signal.Signals) -> None:
        for process in self._shop.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signum)


_JSON = {"Content-Type": "application/json"}
