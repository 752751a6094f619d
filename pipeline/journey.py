"""Runs the whole pipeline on one machine: an MLflow server, a trained and promoted policy, and a policy server.

Each step is a command that the user could have typed, printed before it runs in its own process. This process imports
neither MLflow nor RLlib, because it stays up as long as the servers.
"""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import click
import requests

from pipeline.config import TrainConfig
from pipeline.errors import Interrupted, PipelineError


@dataclass(eq=False)
class PortTaken(PipelineError):
    """Another process listens on a port that `make run` needs."""

    port: int
    setting: str

    template: ClassVar[str] = "Port {port} is taken. Choose another: make run {setting}=PORT"


@dataclass(eq=False)
class CommandFailed(PipelineError):
    """A command of the journey exited with a status other than 0, or a server exited."""

    command: str
    status: int

    template: ClassVar[str] = "`{command}` ended with exit status {status}."


@dataclass(eq=False)
class NotReady(PipelineError):
    """A server was started and did not answer in time."""

    url: str
    timeout_s: float

    template: ClassVar[str] = "Nothing answered at {url} within {timeout_s:.0f} s."


@dataclass(eq=False)
class VersionsNotListed(PipelineError):
    """MLflow answers, but not with the versions of the model."""

    url: str
    reason: str

    template: ClassVar[str] = "MLflow at {url} did not list the versions: {reason}. Its log is mlflow-server.log."


MODEL = TrainConfig.registered_model_name

_LOOPBACK = "127.0.0.1"
_READY_TIMEOUT_S = 120.0
_MLFLOW_LOG = Path("mlflow-server.log")


def journey(mlflow_port: int, serving_port: int, episodes: int) -> None:
    """Promote a policy unless one is in Production, train it if need be, serve it, query it, and wait for a signal.

    Every process that it started has ended when it returns or raises.

    Args:
        mlflow_port: The port of the MLflow server, which keeps `mlflow.db` and `mlartifacts/` in this directory.
        serving_port: The port of the policy server. Both listen on loopback.
        episodes: Episodes to play through HTTP.

    Raises:
        PortTaken: If a port is taken; nothing has started.
        CommandFailed: If a command fails, or a server exits.
        NotReady: If a server does not answer in time.
        VersionsNotListed: If MLflow does not list the versions.
        Interrupted: On SIGINT, SIGTERM and SIGHUP before the policy answers; later, they end the journey normally.
    """
    for name, port in (("MLFLOW_PORT", mlflow_port), ("SERVING_PORT", serving_port)):
        _require_free(port, name)
    mlflow_url = f"http://{_LOOPBACK}:{mlflow_port}"
    policy_url = f"http://{_LOOPBACK}:{serving_port}/{MODEL}"
    os.environ["MLFLOW_TRACKING_URI"] = mlflow_url
    with contextlib.ExitStack() as stack:
        await_ready(stack.enter_context(mlflow_server(mlflow_port)), f"{mlflow_url}/health")
        _ensure_production(mlflow_url)
        server = stack.enter_context(background(python("serving", "run", "--port", str(serving_port))))
        await_ready(server, f"{policy_url}/health")
        run(python("serving", "query", "--url", policy_url, "--episodes", str(episodes), "--quiet"))
        click.secho(f"\nThe policy answers at {policy_url}; MLflow's UI is at {mlflow_url}", bold=True)
        click.echo(f"In another terminal: export MLFLOW_TRACKING_URI={mlflow_url}\nCtrl-C ends both.")
        with contextlib.suppress(Interrupted):
            raise CommandFailed(_shown(server), server.wait())


def _ensure_production(mlflow_url: str) -> None:
    """Promote the newest version unless one is in Production; train one if there is none, or if it is rejected."""
    stages = stages_of(mlflow_url)
    if "Production" in stages.values():
        click.echo(f"A version of '{MODEL}' is already in Production.")
        return
    if stages:
        try:
            _promote(max(stages))
        except CommandFailed as error:
            if error.status != 1:  # a signal, for one
                raise
            click.echo(f"Version {max(stages)} cannot be promoted, so another one is trained.")
        else:
            return
    run(python("pipeline", "train"))
    _promote(max(stages_of(mlflow_url)))


def _promote(version: int) -> None:
    run(python("pipeline", "evaluate", f"models:/{MODEL}/{version}"))
    run(python("pipeline", "promote", str(version)))


def stages_of(mlflow_url: str) -> dict[int, str]:
    """Return the stage of each version, from MLflow's REST API: its client takes 300 MB of memory."""
    url = f"{mlflow_url}/api/2.0/mlflow/model-versions/search"
    try:
        response = requests.get(url, params={"filter": f"name='{MODEL}'"}, timeout=_READY_TIMEOUT_S)
        response.raise_for_status()
        return {int(each["version"]): each["current_stage"] for each in response.json().get("model_versions", [])}
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VersionsNotListed(mlflow_url, str(error)) from error


def mlflow_server(port: int) -> contextlib.AbstractContextManager["subprocess.Popen[bytes]"]:
    """Return a context manager that runs an MLflow server with its files in this directory, and yields its process."""
    command = python("mlflow", "server", "--host", _LOOPBACK, "--port", str(port), "--workers", "1")
    store = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./mlartifacts"]
    # The job executor consists of eight processes, which nothing here uses.
    return background(command + store, log=_MLFLOW_LOG, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")


@contextlib.contextmanager
def background(command: list[str], log: Path | None = None, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process in its own group, so that a Ctrl-C in the terminal reaches only this process, which ends it."""
    click.secho(f"\n$ {shlex.join(['python', *command[1:]])}", fg="cyan")
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log else None
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | environment, start_new_session=True
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()
            # A command ends its own children; `mlflow server` leaves its worker behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


def run(command: list[str]) -> None:
    """Run a command to its end. Raises CommandFailed."""
    with background(command) as process:
        if process.wait():
            raise CommandFailed(_shown(process), process.returncode)


def await_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Wait until a server that a process runs answers at a URL. Raises CommandFailed, NotReady."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CommandFailed(_shown(process), process.returncode)
        with contextlib.suppress(requests.RequestException):
            if requests.get(url, timeout=2).ok:
                return
        time.sleep(0.2)
    raise NotReady(url, _READY_TIMEOUT_S)


def _require_free(port: int, setting: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError as error:
            raise PortTaken(port, setting) from error


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in this Python."""
    return [sys.executable, "-m", module, *arguments]


def _shown(process: "subprocess.Popen[bytes]") -> str:
    return shlex.join(["python", *process.args[1:]])  # type: ignore[index]  # a list: background was given one
