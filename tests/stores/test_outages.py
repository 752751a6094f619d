"""PostgreSQL and S3 going away and coming back, while a policy is trained, promoted, polled and downloaded."""

import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.faults.arena import CONTRARY, GOOD, Load, Server
from tests.faults.load import Record
from tests.faults.report import row
from tests.stores.mlflow_stores import WAYS, StoreRegistry
from tests.stores.servers import S3, Postgres
from tests.workshop import Workshop, await_true

logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.e2e, pytest.mark.stores, pytest.mark.timeout(600)]

OUTAGE_S = 20
RATE = ("--rate", "100")


@pytest.fixture(scope="module", params=WAYS)
def registry(request: pytest.FixtureRequest, registry_of: Callable[[str], StoreRegistry]) -> StoreRegistry:
    """Two contrary policies; version 1 is in Production."""
    registry = registry_of(request.param)
    if not registry.bundles:
        registry.register(GOOD)
        registry.register(CONTRARY)
    registry.promote(1)
    return registry


@pytest.fixture(scope="module")
def server(registry: StoreRegistry) -> Iterator[Server]:
    server = Server(registry, 1, uri=registry.environment["MLFLOW_TRACKING_URI"])
    try:
        yield server.wait_up()
    finally:
        server.end()


@pytest.fixture
def outage(request: pytest.FixtureRequest, postgres: Postgres, s3: S3) -> Callable[[], AbstractContextManager[None]]:
    """Return what stops the store of the parameter for a block."""
    return {"postgres": lambda: postgres.stopped(signal.SIGINT), "s3": s3.stopped}[request.param]


def assert_answered(registry: StoreRegistry, records: list[Record], *notes: str) -> None:
    found = row("", records, registry.bundles, *notes)
    logger.info("%s", found)  # for the documents
    assert (found.failed, found.wrong) == (0, 0), [record for record in records if record.error][:3]


def test_the_database_stops_while_replicas_poll(registry: StoreRegistry, server: Server, postgres: Postgres) -> None:
    registry.promote(1)
    server.await_models(lambda model: model["version"] == 1, "version 1 answers")
    with Load(server, *RATE) as load:
        time.sleep(2)
        with postgres.stopped(signal.SIGINT):
            since = time.monotonic()
            server.await_models(lambda model: model["refresh_error"], "the poll reports it", 60)
            (model,) = server.models().values()
            time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - since)))
        registry.promote(2)
        took = server.await_models(lambda model: model["version"] == 2, "a promotion after it arrives", 60)
        server.await_models(lambda model: model["refresh_error"] is None, "all is well again", 60)
    assert_answered(registry, load.records, f"the promotion after it arrives within {took:.1f} s")
    assert len(model["refresh_error"].splitlines()) == 1
    logger.info(model["refresh_error"])


def test_the_database_stops_right_after_a_promotion(
    registry: StoreRegistry, server: Server, postgres: Postgres
) -> None:
    registry.promote(1)
    server.await_models(lambda model: model["version"] == 1, "version 1 answers", 60)
    with Load(server, *RATE) as load:
        time.sleep(2)
        registry.promote(2)
        with postgres.stopped(signal.SIGINT):
            time.sleep(OUTAGE_S)
        took = server.await_models(lambda model: model["version"] == 2, "the promotion arrives", 60)
    assert_answered(registry, load.records, f"the promotion arrives within {took:.1f} s")


def test_the_store_stops_while_a_version_is_downloaded(registry: StoreRegistry, server: Server, s3: S3) -> None:
    registry.promote(1)
    server.await_models(lambda model: model["version"] == 1, "version 1 answers")
    new = registry.register(CONTRARY)
    with Load(server, *RATE) as load:
        time.sleep(2)
        with s3.stopped():
            since = time.monotonic()
            registry.promote(new)
            server.await_models(lambda model: (model["refused"] or {}).get("version") == new, "it is refused", 120)
            (model,) = server.models().values()
            time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - since)))
            away = time.monotonic() - since
        took = server.await_models(lambda model: model["version"] == new, "it is served once the store is back", 90)
    assert_answered(registry, load.records, f"S3 away for {away:.0f} s; served {took:.1f} s after it is back")
    assert model["version"] == 1
    assert model["refused"]["code"] == "bundle_file_missing"
    assert "cannot read model.onnx" in model["refused"]["reason"]
    logger.info(model["refused"]["reason"])


def test_the_database_stops_during_a_promotion(
    registry: StoreRegistry, server: Server, postgres: Postgres, tmp_path: Path
) -> None:
    """The command ends with one line or waits; the stage holds the old version or the new one, and no other."""
    registry.promote(1)
    server.await_models(lambda model: model["version"] == 1, "version 1 answers", 60)
    shop = Workshop(tmp_path, registry.environment)
    promote = (sys.executable, "-m", "pipeline", "promote", "2", "--name", "faulty", "--force", "--episodes", "2")
    with Load(server, *RATE) as load:
        with postgres.stopped(signal.SIGINT):
            process = shop.start(*promote)
            time.sleep(OUTAGE_S)
        process.wait(180)
        logger.info("exit status %s: %s", process.returncode, shop.output())
        assert "Traceback" not in shop.output()
        assert in_production(registry) == ([1] if process.returncode else [2])
        if process.returncode:
            assert shop.output().splitlines()[-1].startswith("Error: ")
            done = shop.run(*promote)
            assert done.returncode == 0, done.stdout + done.stderr
        assert in_production(registry) == [2]
        took = server.await_models(lambda model: model["version"] == 2, "the promotion arrives", 60)
    assert_answered(registry, load.records, f"the promotion arrives within {took:.1f} s")


def in_production(registry: StoreRegistry) -> list[int]:
    found = registry.client().search_model_versions("name='faulty'")
    return [int(each.version) for each in found if each.current_stage == "Production"]


@pytest.mark.parametrize("outage", ["postgres", "s3"], indirect=True)
def test_training_outlasts_the_outage(
    registry: StoreRegistry, outage: Callable[[], AbstractContextManager[None]], tmp_path: Path
) -> None:
    shop = Workshop(tmp_path, registry.environment)
    name = f"trained-{tmp_path.name}".replace("_", "-")
    options = ("--checkpoint-interval-s", "0.5", "--evaluation-interval", "2048", "--registered-model-name", name)
    process = shop.start(
        sys.executable, "-m", "pipeline", "train", "--max-env-steps", "30000", "--target-return", "499", *options
    )
    await_true(lambda: shop.output().count("greedy return ") > 1 or process.poll() is not None, "it trains", 180)
    with outage():
        time.sleep(OUTAGE_S)
    process.wait(300)
    output = shop.output()
    logger.info(output)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    tracking = registry.environment["MLFLOW_TRACKING_URI"]
    client = MlflowClient(tracking, tracking)
    version = client.get_model_version(name, "1")
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(version.run_id, "train/learning_rate")]
    assert max(later - step for step, later in zip(sorted(steps), sorted(steps)[1:], strict=False)) < 1100
    checkpoints = {each.path for each in client.list_artifacts(version.run_id, "checkpoints")}
    last = f"checkpoints/{max(steps):012d}"
    assert checkpoints >= {f"{last}.tar", f"{last}.json"}, "the checkpoints of the outage may be lost, the last is not"
    assert {each.path for each in client.list_artifacts(version.run_id)} >= {"config.yaml", "episode.gif", "figures"}
