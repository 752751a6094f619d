"""MLflow, a policy server and load on it, all real, and the means to harm each of them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

from serving.policy.bundle import Bundle
from tests.faults.load import Record
from tests.faults.report import read
from tests.serving.commands import server as commands
from tests.serving.policies import CARTPOLE_BUNDLE, CONTRARY_BUNDLE, digest_tags
from tests.workshop import PROJECT, Workshop, answers, await_true, free_port

NAME = "faulty"


class Registry:
    """An MLflow server that can be stopped, and tiny policies registered in it."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.shop = Workshop(directory, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
        self.bundles: dict[int, Bundle] = {}
        self.process = self.start()

    def start(self) -> "subprocess.Popen[str]":
        self.process = self.shop.start(
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *(
                "--workers",
                "1",
                "--backend-store-uri",
                "sqlite:///mlflow.db",
                "--artifacts-destination",
                "./mlartifacts",
            ),
            log="mlflow-server.log",
        )
        await_true(lambda: answers(f"{self.url}/health"), "the MLflow server answers", 180)
        return self.process

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        await_true(lambda: not listened_to(self.port), "the server's workers are gone as well")

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """In the place of the server, something that accepts and never answers."""
        self.stop()
        taken: list[socket.socket] = []
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            listener.listen(64)

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        taken.append(listener.accept()[0])

            thread = threading.Thread(target=accept)
            thread.start()
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()
        for connection in taken:
            connection.close()
        self.start()

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.url, self.url)

    @property
    def database(self) -> str:
        """The server's database, for those who do without the server."""
        return f"sqlite:///{self.shop.directory}/mlflow.db"

    def crowd(self, bundle: Bundle, name: str, versions: int) -> None:
        """Register so many versions of one bundle, in a folder that can be read with the server and without."""
        from mlflow import MlflowClient

        folder = self.shop.directory / name
        write(bundle, folder)
        client = MlflowClient(self.database, self.database)
        client.create_registered_model(name)
        for _ in range(versions):
            client.create_model_version(name, folder.as_uri(), tags=digest_tags(bundle))
        self.bundles[versions] = bundle

    def register(
        self, bundle: Bundle, *, tags: dict[str, str] | None = None, lacking: str = "", name: str = NAME
    ) -> int:
        """Register the bundle's next version, with the digests of `tags` or its own, but for the file `lacking`."""
        client = self.client()
        run = client.create_run("0").info
        with tempfile.TemporaryDirectory() as directory:
            write(bundle, Path(directory))
            if lacking:
                Path(directory, lacking).unlink()
            client.log_artifacts(run.run_id, directory, "bundle")
        with contextlib.suppress(Exception):
            client.create_registered_model(name)
        tags = digest_tags(bundle) if tags is None else tags
        version = client.create_model_version(name, f"{run.artifact_uri}/bundle", run.run_id, tags=tags)
        if name == NAME:  # the load asks this model, and expects the actions of these
            self.bundles[int(version.version)] = bundle
        return int(version.version)

    def promote(self, version: int, name: str = NAME) -> float:
        """Move the version to Production as a person does, and return when it was done."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.client().transition_model_version_stage(
                name, str(version), "Production", archive_existing_versions=True
            )
        return time.time()


class Server(commands.Server):
    """`python -m serving run` for a version in the registry."""

    def __init__(
        self,
        registry: Registry,
        replicas: int,
        *options: str,
        cache: Path | None = None,
        name: str = NAME,
        uri: str = "",
    ) -> None:
        port = free_port()
        command = [
            *(sys.executable, "-m", "serving", "run", "--model-uri", f"models:/{name}/Production"),
            *("--port", str(port), "--num-replicas", str(replicas)),
            *("--cache-dir", str(cache) if cache else "cache", *options),
        ]
        super().__init__(command, {"MLFLOW_TRACKING_URI": uri or registry.url}, port, f"/{name}")

    def wait_up(self) -> Self:
        super().wait_up()
        self.await_models(lambda _: True, "every replica answers", 60)
        return self

    def end(self) -> None:
        self.process.terminate()  # killed, it would leave its proxy's directory
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.clean()


class Load:
    """The load's process; its records are there when it has ended.

    Args:
        server: the server, or its URL.
        url: a URL of it other than its own.
        prefix: what its command is an argument of, such as `ip netns exec`.
    """

    def __init__(
        self, server: commands.Server | str | None, *options: str, url: str = "", prefix: Sequence[str] = ()
    ) -> None:
        self._output = Path(tempfile.mkstemp(prefix="load-")[1])
        own = server if isinstance(server, str) else getattr(server, "url", "")
        command = [*prefix, sys.executable, "-m", "tests.faults.load", url or own, str(self._output), *options]
        self._process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, start_new_session=True)
        self.records: list[Record] = []

    def __enter__(self) -> Self:
        time.sleep(1.5)  # until it has imported what it needs
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._process.communicate(timeout=90)
            self.records = read(self._output)
        finally:
            self._process.kill()
            self._output.unlink()


def write(bundle: Bundle, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    (directory / "model.onnx").write_bytes(bundle.graph)
    (directory / "policy.json").write_bytes(bundle.policy)


def listened_to(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def kill(pid: int, signum: signal.Signals = signal.SIGKILL) -> float:
    """Send the signal, and return when."""
    psutil.Process(pid).send_signal(signum)
    return time.time()


GOOD, CONTRARY = CARTPOLE_BUNDLE, CONTRARY_BUNDLE
