"""How a replica asks the registry without keeping its requests waiting.

Through a server it is a call in a thread. A database that MLflow opens itself would stall the whole process, for it
works in this very interpreter: there a process beside the replica asks, and the replica needs no MLflow at all.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from serving.errors import ServingError
from serving.policy.policy import Bundle
from serving.processes import child_environment
from serving.registry import registry, tracking
from serving.registry.errors import RegistryFailed
from serving.registry.registry import ModelVersion

ANSWER_WITHIN_S = 300.0
"""For a large bundle from a slow store; what takes longer is lost."""


class Registry(Protocol):
    """What a replica needs of the registry. All of it raises ServingError."""

    def resolve(self, model_uri: str) -> ModelVersion:
        """Return the version, with all there is to say of it: `registry.resolve`."""

    def poll(self, model_uri: str) -> ModelVersion:
        """Return the version in one call: `registry.poll`."""

    def fetch(self, version: ModelVersion, cache_dir: Path) -> Bundle:
        """Return its verified bundle: `registry.fetch`."""


def open_registry(uri: str) -> Registry:
    """Return the way to ask the registry at a tracking URI that suits it."""
    tracking.bound_requests()
    return InProcess(uri) if tracking.is_remote(os.environ.get("MLFLOW_REGISTRY_URI", uri)) else Beside(uri)


class InProcess:
    """Asks in the calling thread."""

    def __init__(self, uri: str) -> None:
        # Now, before there are requests to stall: the import takes two seconds.
        import mlflow.artifacts  # noqa: F401

        tracking.set_tracking_uri(uri)

    def resolve(self, model_uri: str) -> ModelVersion:
        """As `registry.resolve`; a server that is down is found out at once. Raises as it."""
        tracking.check_tracking_server()
        return registry.resolve(model_uri)

    def poll(self, model_uri: str) -> ModelVersion:
        """As `registry.poll`."""
        return registry.poll(model_uri)

    def fetch(self, version: ModelVersion, cache_dir: Path) -> Bundle:
        """As `registry.fetch`."""
        return registry.fetch(version, cache_dir)


class Beside:
    """Asks in a process of its own, started when first needed and again when it died. It ends with this one."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def resolve(self, model_uri: str) -> ModelVersion:
        """As `registry.resolve`."""
        return self._ask("resolve", model_uri)  # type: ignore[no-any-return]

    def poll(self, model_uri: str) -> ModelVersion:
        """As `registry.poll`."""
        return self._ask("poll", model_uri)  # type: ignore[no-any-return]

    def fetch(self, version: ModelVersion, cache_dir: Path) -> Bundle:
        """As `registry.fetch`."""
        return self._ask("fetch", version, cache_dir)  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process; the next question starts another."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def __del__(self) -> None:
        self.close()

    def _ask(self, question: str, *arguments: Any) -> Any:
        try:
            connection = self._connect()
            connection.send((question, arguments))
            if not connection.poll(ANSWER_WITHIN_S):
                raise TimeoutError(f"no answer within {ANSWER_WITHIN_S:g} s")
            answer = connection.recv()
        except (OSError, EOFError) as error:
            self.close()
            raise RegistryFailed(self._uri, f"the process that asks it failed: {error or 'it ended'}") from error
        if isinstance(answer, ServingError):
            raise answer
        return answer

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection, other = Pipe()
            with contextlib.closing(other):
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(other.fileno())],
                    pass_fds=[other.fileno()],
                    stdin=subprocess.DEVNULL,
                    # Not on the command line, which every user of the machine reads: it may hold a password.
                    env={**child_environment(), "MLFLOW_TRACKING_URI": self._uri},
                )
        return self._connection


def main(connection: Connection) -> None:
    """Answer questions until there are no more."""
    questions: dict[str, Callable[..., Any]] = {
        "resolve": registry.resolve,
        "poll": registry.poll,
        "fetch": registry.fetch,
    }
    while True:
        try:
            question, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer: Any = questions[question](*arguments)
        except ServingError as error:
            answer = error
        connection.send(answer)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
