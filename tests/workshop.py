"""Commands run for real: in a directory of their own, every process accounted for."""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import click
import psutil
import requests
from click.testing import CliRunner, Result

from serving.ray.settings import free_port as free_port  # noqa: PLC0414  # tests and benchmarks take it from here

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROJECT = Path(__file__).parent.parent

#: Set in the environment of every process that a Workshop starts, and so in those of its descendants.
MARK = "POLICY_TEST_MARK"


def await_true(condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
    """Wait until a condition holds; it fails the test by name if it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.1)


@dataclass
class Workshop:
    """A directory to run commands in, with no MLflow setting but its own, and every process in it marked."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    _started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RAY_"))}
        return inherited | _scripts() | {"PYTHONPATH": str(PROJECT), MARK: self.mark} | self.environment

    def start(self, *command: str, log: str = "log") -> "subprocess.Popen[str]":
        """Start a command in a process group of its own; its output goes to a file."""
        with (self.directory / log).open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                env=self.variables(),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def run(self, *command: str, timeout_s: float = 240) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end; stdout and stderr come as text."""
        return subprocess.run(
            command,
            cwd=self.directory,
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def python(self, *arguments: str, timeout_s: float = 240) -> "subprocess.CompletedProcess[str]":
        """Run `python -m ...` to its end."""
        return self.run(sys.executable, "-m", *arguments, timeout_s=timeout_s)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Move this process into the directory, with the MLflow and the variables of its commands."""
        import mlflow

        uri = self.environment.get("MLFLOW_TRACKING_URI", f"sqlite:///{self.directory}/mlflow.db")
        path = list(sys.path)
        with contextlib.chdir(self.directory), mock.patch.dict(os.environ, _scripts() | self.environment):
            mlflow.set_tracking_uri(uri)
            try:
                yield
            finally:
                mlflow.set_tracking_uri(None)  # so that the variable decides again
                sys.path[:] = path
                self._forget_modules()

    def client(self) -> "MlflowClient":
        """The MLflow of the commands. Made in the directory, where the first use of a database puts its artifacts."""
        from mlflow import MlflowClient

        with self.inside():
            return MlflowClient()

    def invoke(self, command: click.Command, *arguments: str) -> Result:
        """Run a command of ours in this process, where a process of its own would show nothing more.

        Training does without its worker process, as on a machine of one core.
        """
        with self.inside(), mock.patch("pipeline.training.worker_process.WorkerProcess.start"):
            return CliRunner().invoke(command, arguments)

    def _forget_modules(self) -> None:
        """Drop the modules of the directory that a command imported: another test has its own of the same name."""
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(f"{self.directory}{os.sep}"):
                del sys.modules[name]
        importlib.invalidate_caches()

    def output(self, log: str = "log") -> str:
        return (self.directory / log).read_text()

    def processes(self) -> list[psutil.Process]:
        """Whatever still lives of what was started here, orphans included."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def end(self) -> None:
        """Kill what is left."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        for started in self._started:
            started.wait()


def _scripts() -> dict[str, str]:
    """The PATH with the commands of this Python's environment first."""
    return {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def command_line(process: psutil.Process) -> str:
    """The command line of a process; "" once it has ended, which it may do at any time."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def answers(url: str) -> bool:
    """Whether a URL answers with a success."""
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False
