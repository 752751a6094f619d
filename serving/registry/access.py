"""Gives a replica access to the registry that does not delay its requests.

An MLflow server is called in the calling thread. With a database or a folder MLflow does the work in the process that
calls it, which would delay all requests, so a subprocess does it and the replica does not even import MLflow.
"""

import contextlib
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from serving.errors import ServingError
from serving.policy.bundle import Bundle
from serving.processes import child_environment
from serving.registry import registry, tracking
from serving.registry.cache import BundleCache
from serving.registry.errors import CacheUnwritable, RegistryFailed
from serving.registry.model_version import ModelVersion

R = TypeVar("R")

CALL_TIMEOUT_S = 300.0
"""Enough for a large bundle from a slow artifact store."""


class Registry(ABC):
    """The registry as a replica uses it. All methods raise ServingError."""

    def resolve(self, model_uri: str) -> ModelVersion:
        """Resolve the URI with all warnings and a full error message, within seconds if MLflow does not answer."""
        self._call(tracking.check_registry)
        return self._call(registry.resolve, model_uri)

    def poll(self, model_uri: str) -> ModelVersion:
        """Resolve the URI in one call to the registry."""
        return self._call(registry.poll, model_uri)

    def fetch(self, version: ModelVersion, cache_dir: Path) -> Bundle:
        """Return the version's verified bundle."""
        return self._call(registry.fetch, version, cache_dir)

    @abstractmethod
    def _call(self, function: Callable[..., R], *arguments: Any) -> R:
        """Return `function(*arguments)`."""


def open_registry(uri: str) -> Registry:
    """Return the registry of a tracking URI: in this process for an MLflow server, else in a subprocess.

    It is at MLFLOW_REGISTRY_URI if that is set.
    """
    tracking.bound_requests()
    remote = tracking.is_remote(os.environ.get(tracking.REGISTRY_URI) or uri)
    return DirectRegistry(uri) if remote else SubprocessRegistry(uri)


class DirectRegistry(Registry):
    """Calls the registry in the calling thread. The first call imports MLflow, which takes a second."""

    def __init__(self, uri: str) -> None:
        tracking.use(uri)

    def _call(self, function: Callable[..., R], *arguments: Any) -> R:
        return function(*arguments)


class SubprocessRegistry(Registry):
    """Calls the registry in a subprocess, which the first call starts and a call after its death restarts.

    The subprocess ends with this process. One thread at a time may use it. What the cache has needs no subprocess, and
    one that was started for a download ends with it: most replicas of a node never poll.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def fetch(self, version: ModelVersion, cache_dir: Path) -> Bundle:
        """Return the version's verified bundle, from the cache or downloaded by the subprocess."""
        was_idle = self._process is None

        def download(version: ModelVersion, directory: Path) -> None:
            self._call(_download, version, directory, cache_dir)

        try:
            return BundleCache(cache_dir).bundle(version, download)
        finally:
            if was_idle:
                self.close()

    def close(self) -> None:
        """Kill the subprocess. The next call starts another."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def __del__(self) -> None:
        self.close()

    def _call(self, function: Callable[..., R], *arguments: Any) -> R:
        try:
            connection = self._connect()
            connection.send((function, arguments))
            if not connection.poll(CALL_TIMEOUT_S):
                raise TimeoutError(f"no result within {CALL_TIMEOUT_S:g} s")
            result: R | ServingError = connection.recv()
        except (OSError, EOFError) as error:
            self.close()
            raise RegistryFailed(self._uri, f"the subprocess that calls it failed: {error or 'it ended'}") from error
        if isinstance(result, ServingError):
            raise result
        return result

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection, other = Pipe()
            with contextlib.closing(other):
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(other.fileno())],
                    pass_fds=[other.fileno()],
                    stdin=subprocess.DEVNULL,
                    # The URI may hold a password, and every user of the machine can read command lines.
                    env=child_environment(MLFLOW_TRACKING_URI=self._uri),
                    process_group=0,  # Ctrl-C in a terminal does not interrupt a call; the closed connection ends it
                )
        return self._connection


def _download(version: ModelVersion, directory: Path, cache_dir: Path) -> None:
    """Download a version's files into a directory of the cache. The other process raises no OSError of this one."""
    try:
        registry.download(version, directory)
    except OSError as error:
        raise CacheUnwritable(str(cache_dir), error.strerror or str(error)) from error


def main(connection: Connection) -> None:
    """Run the functions that the other end of the connection sends, until it closes."""
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            result: Any = function(*arguments)
        except ServingError as error:
            result = error
        except Exception as error:  # noqa: BLE001 - each store raises exceptions of its own
            result = RegistryFailed(tracking.tracking_uri(), f"{type(error).__name__}: {error}")
        connection.send(result)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
