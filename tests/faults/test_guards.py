"""Versions that fail at one live observation in a thousand: no request fails, and all replicas take them back."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.arena import Load, Registry, Server, kill
from tests.faults.load import OBSERVATIONS
from tests.serving.failing import FAILING

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(600)]

RATE = ("--rate", "200", "--fatal-every", "1000")
OUT_WITHIN_S = 10


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def trio(registry: Registry, cache: Path) -> Iterator[Server]:
    """A server with three replicas."""
    registry.promote(1)
    server = Server(registry, 3, cache=cache)
    try:
        yield server.wait_up()
    finally:
        server.end()
        registry.promote(1)


def is_back(model: dict, failing: int, code: str) -> bool:
    refused = model["refused"] or {}
    return model["version"] == 1 and (refused.get("version"), refused.get("code")) == (failing, code)


@pytest.mark.parametrize("code", FAILING)
def test_a_version_that_fails_at_one_observation_in_a_thousand(
    registry: Registry, trio: Server, cache: Path, tell, code: str
) -> None:
    failing = registry.register(FAILING[code])
    with Load(trio, *RATE) as load:
        registry.promote(failing)
        trio.await_models(lambda model: model["version"] == failing or model["refused"], "all serve it", 30)
        trio.await_models(lambda model: is_back(model, failing, code), "version 1 answers again", 60)
        back = time.time()
        killed = trio.replica_pid()
        kill(killed)
        trio.await_models(lambda model: model["replica"]["pid"] != killed, "a replica has started", 60)
        trio.await_models(lambda model: is_back(model, failing, code), "it starts with version 1", 5)
        time.sleep(5)
    fatal = [record for record in load.records if record.observation == len(OBSERVATIONS)]
    first = min(record.began for record in fatal if record.began > promoted_at(load.records, failing))
    last = max(record.began for record in load.records if record.version == failing)
    crashed = trio.shop.output().count("a replica of this node crashed")
    note = f"out {back - first:.1f} s after the first fatal observation, its last answer {last - first:.1f} s after it"
    note += f", {crashed} replicas crashed" if crashed else ""
    row = tell(f"a version with the fault {code}", load.records, note)
    assert (row.failed, row.wrong) == (0, 0), [record for record in load.records if record.error][:3]
    assert {record.version for record in fatal} == {1}
    assert crashed == (code == "crashed"), "the request that crashes a replica is not computed by the others"
    assert last - first < OUT_WITHIN_S
    trio.end()
    again = Server(registry, 1, cache=cache)
    try:
        again.wait_up()
        again.await_models(lambda model: is_back(model, failing, code), "it stays out after a restart", 30)
    finally:
        again.end()


def promoted_at(records: list, version: int) -> float:
    return min(record.began for record in records if record.version == version)
