"""The version that all contenders serve: the user's own registry, or a throwaway one with a policy of seconds."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.workshop import Workshop, answers, free_port

UP_WITHIN_S = 60.0
MODEL_URI = "models:/cartpole-ppo/Production"
TRAIN = ("pipeline", "train", "--promote", "true")


@dataclass(frozen=True)
class Registered:
    """A version in a registry, with its files on this disk."""

    tracking_uri: str
    pinned_uri: str
    graph: Path
    checkpoint: Path


@contextlib.contextmanager
def registered(directory: Path) -> Iterator[Registered]:
    """Give the version in Production at MLFLOW_TRACKING_URI; where that isn't set, train one beside a server."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        yield _downloaded(given, directory)
        return
    with _server() as (shop, uri):
        done = shop.python(*TRAIN)
        if done.returncode:
            raise RuntimeError(done.stderr)
        yield _downloaded(uri, directory)


@contextlib.contextmanager
def _server() -> Iterator[tuple[Workshop, str]]:
    place = Path(tempfile.mkdtemp(prefix="b-"))
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    shop = Workshop(place, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": uri})
    shop.start(
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./mlartifacts"),
    )
    try:
        deadline = time.monotonic() + UP_WITHIN_S
        while not answers(f"{uri}/health"):
            if time.monotonic() > deadline:
                raise RuntimeError(shop.output())
            time.sleep(0.1)
        yield shop, uri
    finally:
        shop.end()
        shutil.rmtree(place, ignore_errors=True)


def _downloaded(tracking_uri: str, directory: Path) -> Registered:
    import mlflow

    from serving.policy.bundle import BUNDLE_FILES
    from serving.registry.registry import resolve

    mlflow.set_tracking_uri(tracking_uri)
    pinned = resolve(MODEL_URI).pinned_uri
    for part in (*BUNDLE_FILES, "checkpoint"):
        mlflow.artifacts.download_artifacts(f"{pinned}/{part}", dst_path=str(directory))
    return Registered(tracking_uri, pinned, directory / "model.onnx", directory / "checkpoint")
