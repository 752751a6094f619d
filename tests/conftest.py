"""What tests of both packages share: directories to run commands in, and a real MLflow server."""

import contextlib
import gc
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.workshop import Workshop, answers, await_true, free_port


def pytest_configure(config: pytest.Config) -> None:
    # As `python -m pipeline` does: collecting garbage among the objects of torch, RLlib and MLflow takes long.
    gc.set_threshold(100_000, 50, 100)
    # A shell's background jobs ignore Ctrl-C, and so would the commands that tests start, and stop as a person does.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Tests run beside each other. Threads of torch and OpenBLAS that wait for each other took a quarter of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not hasattr(config, "workerinput"):
        # MLflow and Ray leave temporary files, above all when they are killed. They are deleted with the session's
        # own directory, whose path is short for Ray's sockets. pytest keeps its `tmp_path`s where they were.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="t-", dir="/tmp")
        config.add_cleanup(lambda: shutil.rmtree(tempfile.gettempdir(), ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The long files first, so that at the end no worker waits for the last of them.
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.fixture
def hangup() -> Iterator[None]:
    """Let SIGHUP do here, and in the processes that the test starts, what it does outside `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[Path], None]:
    """Return a function that puts an empty `mlflow.db` into a directory.

    It is a copy of one that the session's first test has MLflow make, which takes two seconds.
    """
    directory = tmp_path_factory.getbasetemp()
    file = (directory if worker_id == "master" else directory.parent) / "empty.db"
    with FileLock(f"{file}.lock"):
        if not file.exists():
            from mlflow import MlflowClient

            MlflowClient(f"sqlite:///{file}.new").search_experiments()
            Path(f"{file}.new").rename(file)

    def put_into(directory: Path) -> None:
        shutil.copyfile(file, directory / "mlflow.db")
        with contextlib.closing(sqlite3.connect(directory / "mlflow.db")) as database, database:
            database.execute("UPDATE experiments SET artifact_location = ?", (f"{directory}/mlruns/0",))

    return put_into


@pytest.fixture
def workshop(tmp_path: Path, new_database: Callable[[Path], None]) -> Iterator[Workshop]:
    """A directory whose MLflow store is its own `mlflow.db`, as it is for a person who sets nothing."""
    new_database(tmp_path)
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
