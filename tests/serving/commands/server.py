"""A command that serves, started as in a terminal, with every process of it accounted for."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil
import requests

from serving.registry.model_uri import route_prefix
from tests.serving.store import Store
from tests.workshop import Workshop, answers, command_line, free_port

UP_WITHIN_S, DOWN_WITHIN_S = 90, 60


class Server:
    """A command that serves, in a directory and a session of its own."""

    def __init__(self, command: list[str], environment: dict[str, str], port: int, prefix: str) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}{prefix}"
        self.grpc_address = ""
        self.directory = Path(tempfile.mkdtemp(prefix="r-", dir="/tmp"))  # short, for Ray's sockets
        self.shop = Workshop(self.directory, {"RAY_TMPDIR": str(self.directory), **environment})
        self.process = self.shop.start(*command)

    def wait_up(self) -> Self:
        await_true(lambda: answers(f"{self.url}/health") or self.process.poll() is not None, UP_WITHIN_S)
        assert answers(f"{self.url}/health"), self.output()
        if "serving" in self.process.args:  # `python -m serving run` polls the server before it prints its URL
            await_true(lambda: "Stop it:" in self.output(), UP_WITHIN_S, self.output)
        return self

    def models(self) -> dict[str, dict[str, Any]]:
        """What each replica says of itself, by its id, over connections of their own."""
        found = {}
        for _ in range(8 * self._replicas):
            with contextlib.suppress(requests.RequestException, KeyError, ValueError):
                model = requests.get(f"{self.url}/model", timeout=5).json()
                found[model["replica"]["id"]] = model
            if len(found) == self._replicas:
                break
        return found

    def await_models(self, condition: Callable[[dict[str, Any]], object], what: str, timeout_s: float = 30) -> float:
        """Wait until it holds of every replica, and return how long that took."""
        start = time.monotonic()

        def all_do() -> bool:
            models = self.models()
            return len(models) == self._replicas and all(condition(model) for model in models.values())

        await_true(all_do, timeout_s, lambda: f"not within {timeout_s} s: {what}")
        return time.monotonic() - start

    def replica_pid(self) -> int:
        return int(next(iter(self.models().values()))["replica"]["pid"])

    @property
    def _replicas(self) -> int:
        command = list(self.process.args)  # type: ignore[arg-type]  # a list: the workshop was given one
        return int(command[command.index("--num-replicas") + 1]) if "--num-replicas" in command else 1

    def children(self) -> list[psutil.Process]:
        """Return the processes that the command has started, orphans included."""
        return [each for each in self.shop.processes() if each.pid != self.process.pid]

    def stop(self, *signals: signal.Signals, group: bool = False) -> int:
        """Send the signals, wait until the process ends, and return its exit status."""
        for signum in signals:
            os.killpg(self.process.pid, signum) if group else self.process.send_signal(signum)
            time.sleep(0.2)  # the system merges equal signals that are pending
        return self.process.wait(DOWN_WITHIN_S)

    def assert_nothing_left(self, but: str = "") -> None:
        """Wait until all processes have ended, except those whose name contains `but`."""

        def left() -> list[str]:
            names = [command_line(each)[:80] for each in self.shop.processes()]
            return [each for each in names if not but or but not in each]

        await_true(lambda: not left(), DOWN_WITHIN_S, lambda: f"still running: {left()}")
        assert not self._listening()

    def private_directory(self) -> Path:
        """The directory of HAProxy's configuration and sockets."""
        lines = [command_line(child).split() for child in self.children()]
        haproxy = next(line for line in lines if line and Path(line[0]).name == "haproxy" and "-f" in line)
        return Path(haproxy[haproxy.index("-f") + 1]).parents[1]

    def output(self) -> str:
        return self.shop.output()

    def clean(self) -> None:
        """Kill the processes that a failed test has left."""
        self.shop.end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _listening(self) -> bool:
        try:
            requests.get(self.url, timeout=1)
        except requests.ConnectionError:
            return False
        return True


def await_true(condition: Callable[[], Any], timeout_s: float, otherwise: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def start_run(store: Store, model_uri: str, *options: str, **environment: str) -> Server:
    """Start `python -m serving run` on a free port."""
    port = free_port()
    command = [sys.executable, "-m", "serving", "run", "--model-uri", model_uri, "--port", str(port)]
    directory = ["--cache-dir", str(store.directory / "cache")]
    prefix = route_prefix(model_uri.removeprefix("models:/").split("/")[0])
    return Server([*command, *directory, *options], {"MLFLOW_TRACKING_URI": store.uri, **environment}, port, prefix)
