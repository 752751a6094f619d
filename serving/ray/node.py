"""A cluster as seen from one of its nodes: starts the node's Ray, joins the cluster, deletes what it left behind."""

import logging
import os
import site
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import serving
from serving.ray import internals, settings
from serving.ray.errors import ApplicationMissing, ApplicationOfFile, ClusterUnreachable, ServerRuns

CONNECT_TIMEOUT_S = 5.0
NAMESPACE = "serve"


def start(arguments: tuple[str, ...], max_body_bytes: int) -> NoReturn:
    """Replace this process by `ray start` with these arguments and the settings that Serve and HAProxy need.

    The processes of this Ray can import this package.

    Raises the errors of `settings.configure_node`.
    """
    settings.configure_node(max_body_bytes)
    root = str(Path(serving.__file__).parents[1])
    if root not in site.getsitepackages():
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    os.execv(sys.executable, [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments])  # noqa: S606 - the user's arguments


def join(address: str, runtime_env: dict[str, Any] | None = None) -> None:
    """Connect this process to the Ray cluster at an address. Raises ClusterUnreachable."""
    import ray

    _check_listening(address)
    try:
        ray.init(address=address, namespace=NAMESPACE, logging_level=logging.WARNING, runtime_env=runtime_env)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterUnreachable(address, next(iter(str(error).splitlines()), repr(error))) from error


def delete_left_behind(name: str, address: str) -> None:
    """Delete an application whose server joined the cluster at an address, and was killed.

    Raises:
        ClusterUnreachable: The cluster cannot be joined.
        ApplicationMissing: It runs no application of that name.
        ApplicationOfFile: The application was deployed from a file.
        ServerRuns: Its server still runs.
    """
    import ray
    from ray import serve

    try:
        join(address)
        running = serve.status().applications
        if name not in running:
            raise ApplicationMissing(name, ", ".join(sorted(running)) or "none")
        if internals.is_from_config_file(name):
            raise ApplicationOfFile(name)
        if internals.has_deployer(name):
            raise ServerRuns(name)
        serve.delete(name)
    finally:
        ray.shutdown()


def _check_listening(address: str) -> None:
    """Raise ClusterUnreachable if nothing listens at `HOST:PORT`, for which Ray would wait while it prints warnings."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise ClusterUnreachable(address, getattr(error, "strerror", None) or str(error)) from error
