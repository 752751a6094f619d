"""Fixtures with tiny real policies: a registry that holds them, and a server that serves them."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import uvicorn

from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from serving.policy.policy import Policy
from tests.serving.asking import served
from tests.serving.policies import CARTPOLE_BUNDLE
from tests.serving.store import Store


def pytest_configure(config: pytest.Config) -> None:
    # Deprecations inside of MLflow and Ray.
    config.addinivalue_line("filterwarnings", "ignore::sqlalchemy.exc.SADeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore::pydantic.warnings.PydanticDeprecatedSince20")


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """Restore this process's environment variables, which `build` sets for the Ray that it starts, after each test."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], None]) -> Store:
    directory = tmp_path_factory.mktemp("store")
    new_database(directory)
    return Store(f"sqlite:///{directory}/mlflow.db", directory)


@pytest.fixture
def store(shared_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The registry at MLFLOW_TRACKING_URI. Tests share it, so each uses its own model names."""
    import mlflow

    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shared_store.uri)
    yield shared_store
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def policy() -> Policy:
    return Policy.load(CARTPOLE_BUNDLE)


@pytest.fixture
def app() -> PolicyApp:
    return PolicyApp(served(), Arguments(max_body_bytes=1000))


@pytest.fixture
def serve_http() -> Iterator[Callable[[Any], str]]:
    """Return a function that serves an ASGI application over HTTP in this process and returns its URL."""
    stops: list[Callable[[], None]] = []

    def start(app: Any) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join()
            listener.close()

        stops.append(stop)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for stop in stops:
        stop()
