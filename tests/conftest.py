"""What tests of both packages share: directories to run commands in, and a real MLflow server."""

import gc
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workshop import Workshop, answers, await_true, free_port


def pytest_configure() -> None:
    # As `python -m pipeline` does: collecting garbage among the objects of torch, RLlib and MLflow takes long.
    gc.set_threshold(100_000, 50, 100)
    # A shell's background jobs ignore Ctrl-C, and so would the commands that tests start, and stop as a person does.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """A directory whose MLflow store is its own `mlflow.db`, as it is for a person who sets nothing."""
    shop = Workshop(tmp_path)
    yield shop
    shop.end()


@pytest.fixture(scope="session")
def tracked_workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A directory beside a real MLflow server that proxies its artifacts; shared by the session."""
    directory = tmp_path_factory.mktemp("tracked")
    port = free_port()
    shop = Workshop(directory, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
    shop.start(
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./mlartifacts"),
        log="mlflow-server.log",
    )
    shop.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    try:
        await_true(lambda: answers(f"http://127.0.0.1:{port}/health"), "the MLflow server answers")
        yield shop
    finally:
        shop.end()
