"""From training to rollback, with MLflow's store in PostgreSQL and its artifacts in S3."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.serving.commands.server import Server
from tests.stores.mlflow_stores import WAYS, StoreRegistry
from tests.stores.servers import S3
from tests.workshop import Workshop, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.stores, pytest.mark.timeout(600)]

TRAIN = ("pipeline", "train", "--target-return", "20", "--max-env-steps", "5000")
PROMOTE = ("pipeline", "promote", "--episodes", "2", "--force")


@pytest.mark.parametrize("way", WAYS)
def test_the_journey(way: str, registry_of: Callable[[str], StoreRegistry], s3: S3, tmp_path: Path) -> None:
    registry = registry_of(way)
    shop = Workshop(tmp_path, registry.environment)

    def run(*arguments: str) -> str:
        done = shop.python(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    run(*TRAIN)
    run(*PROMOTE, "1")
    port = free_port()
    command = [sys.executable, "-m", "serving", "run", "--port", str(port), "--cache-dir", str(tmp_path / "cache")]
    server = Server(command, registry.environment, port, "/cartpole-ppo")
    try:
        server.wait_up()
        played = run("serving", "query", "--url", server.url, "--episodes", "2", "--quiet")
        assert "2 episodes" in played
        tracking = registry.environment["MLFLOW_TRACKING_URI"]
        MlflowClient(tracking, tracking).copy_model_version("models:/cartpole-ppo/1", "cartpole-ppo")
        run(*PROMOTE, "2")
        server.await_models(lambda model: model["version"] == 2, "the promoted version answers")
        run("pipeline", "rollback")
        server.await_models(lambda model: model["version"] == 1, "the version before it answers")
        assert run("pipeline", "history").count("rollback") >= 1
        assert "2" in run("pipeline", "versions")
        run("pipeline", "verify", "models:/cartpole-ppo/Production")
        assert server.stop(signal.SIGTERM) == 0
    finally:
        server.clean()
    assert [key for key in s3.all_keys() if key.startswith(f"{way}/")]
    assert not list(tmp_path.glob("mlruns")), "nothing is written beside the stores"
