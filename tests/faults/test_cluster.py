"""The faults of a cluster, `make test-cluster`: load on each of three nodes, one fault after another."""

import contextlib
import json
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.faults.arena import CONTRARY, GOOD, Load, Registry, kill
from tests.faults.load import Record
from tests.faults.network import Machine, Network, why_impossible
from tests.faults.nodes import PASSWORD, PORT, SCRIPTS, Cluster, cluster
from tests.faults.report import gap_s
from tests.workshop import await_true

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible())),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server (Debian: redis-server)"),
]

RATE = ("--rate", "40", "--connections", "16")
SWAP_WITHIN_S, HEAD_AWAY_S = 5, 60


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network(3).up() as network:
        yield network


@pytest.fixture(scope="module")
def registry(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:  # noqa: ARG001 - in it
    """Versions 1 and 2, which take contrary actions; 1 is in Production."""
    registry = Registry(tmp_path_factory.mktemp("registry"))
    try:
        registry.register(GOOD)
        registry.register(CONTRARY)
        registry.promote(1)
        yield registry
    finally:
        registry.shop.end()


@pytest.fixture(scope="module")
def nodes(network: Network, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(network, registry, tmp_path_factory.mktemp("cluster")) as found:
        yield found


@contextlib.contextmanager
def load_on(nodes: Cluster, *machines: Machine) -> Iterator[dict[int, Load]]:
    """Load through each node's own port; the records are there at the end."""
    with contextlib.ExitStack() as stack:
        yield {machine.index: stack.enter_context(nodes.load(machine, *RATE)) for machine in machines}


def together(loads: dict[int, Load]) -> list[Record]:
    return sorted(record for load in loads.values() for record in load.records)


def assert_swapped(records: list[Record], at: float, version: int) -> float:
    """All answers name the version soon after it was promoted; return how long after."""
    old = [record.began - at for record in records if record.began >= at and record.version != version]
    slowest = max([0.0, *old])
    assert slowest < SWAP_WITHIN_S
    return slowest


def test_statistics_and_admin_sockets_are_private_on_every_node(nodes: Cluster) -> None:
    for machine in nodes.machines:
        proxy = nodes.haproxies(machine)[-1]
        private = Path(proxy.cmdline()[proxy.cmdline().index("-f") + 1])
        configuration = machine.directory / private.relative_to("/tmp")
        assert stat.S_IMODE(configuration.parent.stat().st_mode) == stat.S_IRWXU
        assert stat.S_IMODE((configuration.parent / "admin.sock").stat().st_mode) == stat.S_IRUSR | stat.S_IWUSR
        # Serve writes a file whenever replicas change, and the wrapper edits it before a HAProxy reads it.
        await_true(lambda: "option http-buffer-request" in configuration.read_text(), "the wrapper has edited it", 10)  # noqa: B023
        listeners = machine.listeners()
        print(f"node {machine.index}: {listeners}")  # noqa: T201 - for the documents
        assert {port for port, (_, process) in listeners.items() if process == "haproxy"} == {PORT}
        assert not {8404, 9101} & listeners.keys()


def test_the_password_of_mlflow_is_in_no_answer_log_file_or_status(nodes: Cluster, registry: Registry) -> None:
    denied = requests.get("http://10.53.0.254:5400/health", timeout=5)
    assert denied.status_code == 401, "the replicas could not load their policy without the password"
    registry.stop()
    try:
        nodes.await_models(lambda model: model["refresh_error"], "all notice that MLflow is gone", 60)
        shown = json.dumps(nodes.models())
    finally:
        registry.start()
    nodes.await_models(lambda model: not model["refresh_error"], "all is well again", 90)
    shown += "".join(
        requests.get(f"{nodes.url(machine)}/{path}", timeout=5).text
        for machine in nodes.machines
        for path in ("model", "health", "openapi.json")
    )
    shown += "".join(nodes.get(path) for path in (*DASHBOARD, *(f"/nodes/{node}" for node in nodes.node_ids())))
    shown += "".join(nodes.hub.run(str(SCRIPTS / "serve"), command).stdout for command in ("status", "config"))
    assert "models:/faulty/Production" in shown
    for process in (each for machine in nodes.machines for each in machine.shop.processes()):
        with contextlib.suppress(psutil.Error):  # it has ended
            shown += f"{process.cmdline()} {process.environ()}"
    assert PASSWORD not in shown
    subprocess.run(["redis-cli", "-h", "10.53.0.254", "-p", "6390", "save"], check=True, capture_output=True)
    assert [file for file in files(nodes) if PASSWORD.encode() in file.read_bytes()] == []


#: What Ray's dashboard shows of nodes, processes, jobs, environments and Serve.
DASHBOARD = (
    "/api/serve/applications/",
    "/logical/actors",
    "/api/jobs/",
    "/api/cluster_status",
    *(f"/api/v0/{kind}?detail=true" for kind in ("actors", "workers", "nodes", "tasks", "runtime_envs", "jobs")),
)


def files(nodes: Cluster) -> Iterator[Path]:
    """All files of the nodes and of Redis, but for the credentials and the gateway's configuration."""
    for directory in (*(machine.directory for machine in nodes.machines), nodes.hub.directory):
        for file in directory.rglob("*"):
            if file.is_file() and not file.is_symlink() and file.name not in {"credentials", "gateway.cfg"}:
                yield file


def test_a_promotion(nodes: Cluster, registry: Registry, tell: Callable[..., Any]) -> None:
    with load_on(nodes, *nodes.machines) as loads:
        time.sleep(5)
        at = registry.promote(2)
        time.sleep(SWAP_WITHIN_S + 3)
        back_at = registry.promote(1)
        time.sleep(SWAP_WITHIN_S + 3)
    records = together(loads)
    took = assert_swapped([record for record in records if record.began < back_at], at, 2)
    took = max(took, assert_swapped(records, back_at, 1))
    row = tell("three nodes: a promotion and a rollback", records, f"complete on all nodes within {took:.1f} s")
    assert (row.failed, row.wrong) == (0, 0), [record for record in records if record.error][:3]


def test_sigkill_of_a_remote_replica(nodes: Cluster, tell: Callable[..., Any]) -> None:
    killed = nodes.replica(nodes.workers[0])
    with load_on(nodes, *nodes.machines) as loads:
        time.sleep(3)
        kill(killed)
        back = nodes.await_models(lambda model: model["replica"]["pid"] != killed, "three are back", 120)
        time.sleep(2)
    records = together(loads)
    note = f"stall {gap_s(records):.2f} s; three replicas again after {back:.0f} s"
    row = tell("three nodes: SIGKILL of a worker's replica", records, note)
    assert (row.failed, row.wrong) == (0, 0), [record for record in records if record.error][:3]


def test_sigkill_of_the_heads_haproxy(nodes: Cluster, tell: Callable[..., Any]) -> None:
    with load_on(nodes, *nodes.machines) as loads:
        time.sleep(3)
        at = max(kill(proxy.pid) for proxy in nodes.haproxies(nodes.head))
        back = nodes.wait_whole()
        time.sleep(2)
    own = loads.pop(nodes.head.index).records
    unanswered = [record for record in own if record.error is not None]
    note = f"the head's own port: {len(unanswered)} of {len(own):,} refused, answers again after {back:.0f} s"
    row = tell("three nodes: SIGKILL of the head's HAProxy", together(loads), note)
    assert (row.failed, row.wrong) == (0, 0), [record for record in together(loads) if record.error][:3]
    assert all(record.began >= at - 1 for record in unanswered)
    assert own[-1].error is None


def test_sigkill_of_a_workers_raylet(nodes: Cluster, tell: Callable[..., Any]) -> None:
    lost = nodes.workers[-1]
    with load_on(nodes, *nodes.machines) as loads:
        time.sleep(3)
        (raylet,) = lost.processes("raylet")
        at = kill(raylet.pid)
        await_true(lambda: not lost.processes("haproxy"), "the node's proxy ends with it", 60)
        time.sleep(10)
        lost.power_off()
        nodes.start_ray(lost)
        back = nodes.wait_whole()
        time.sleep(2)
    assert len(list(lost.directory.glob("serving-*/*/haproxy.cfg"))) == 1, "what the lost proxy left is removed"
    own = loads.pop(lost.index).records
    unanswered = [record for record in own if record.error is not None]
    note = (
        f"the node's own port: {len(unanswered)} of {len(own):,} refused; started again, it answers after {back:.0f} s"
    )
    row = tell("three nodes: SIGKILL of a worker's raylet", together(loads), note)
    assert (row.failed, row.wrong) == (0, 0), [record for record in together(loads) if record.error][:3]
    assert all(record.began >= at - 1 for record in unanswered)
    assert own[-1].error is None


def test_the_head_lost_for_a_minute_and_a_promotion_meanwhile(
    nodes: Cluster, registry: Registry, tell: Callable[..., Any]
) -> None:
    with load_on(nodes, *nodes.workers) as loads:
        time.sleep(3)
        nodes.head.power_off()
        lost_at = time.time()
        time.sleep(5)
        promoted_at = registry.promote(2)
        time.sleep(max(0.0, lost_at + HEAD_AWAY_S - time.time()))
        nodes.start_ray(nodes.head)
        back = nodes.wait_whole()
        time.sleep(2)
    records = together(loads)
    took = assert_swapped(records, promoted_at, 2)
    note = f"the promotion arrives within {took:.1f} s; the head answers again {back:.0f} s after its start"
    row = tell("three nodes: the head lost for 60 s, a promotion meanwhile", records, note)
    assert (row.failed, row.wrong) == (0, 0), [record for record in records if record.error][:3]
    nodes.await_models(lambda model: model["version"] == 2, "the head's replica serves it, too")
    at = registry.promote(1)
    nodes.await_models(lambda model: model["version"] == 1, "promotions reach all nodes again", 30)
    assert time.time() - at < 30


def test_a_server_that_joins_the_cluster_serves_on_every_node(nodes: Cluster) -> None:
    nodes.delete()
    command = (sys.executable, "-m", "serving", "run", "--address", f"{nodes.head.address}:6379", "--num-replicas", "3")
    mlflow = ("--tracking-uri", nodes.tracking_uri, "--credentials-file", "/tmp/credentials")
    server = nodes.head.start(*command, "--model-uri", "models:/faulty/Production", *mlflow, log="run.log", enter=True)
    nodes.wait_whole()
    await_true(lambda: "Stop it:" in nodes.head.shop.output("run.log"), "the command prints its URL")
    assert f"at http://{nodes.head.address}:{PORT}/faulty\n" in nodes.head.shop.output("run.log")
    server.send_signal(signal.SIGINT)
    assert server.wait(60) == 0
    await_true(lambda: not nodes.models(), "the application is gone", 60)
