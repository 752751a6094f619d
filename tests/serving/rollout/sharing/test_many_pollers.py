"""Many replicas on several nodes, a node being a cache directory, and a real MLflow server."""

import itertools
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import pytest

from tests.serving.policies import CARTPOLE_BUNDLE, digest_tags
from tests.workshop import Workshop, await_true

INTERVAL_S = 2.0
SHORTEST_PAUSE_S = 0.9 * INTERVAL_S


class Line(NamedTuple):
    """A line that a process printed."""

    words: list[str]
    pid: int
    at: float


class Node:
    """Two processes of pollers that share a cache directory."""

    def __init__(self, shop: Workshop, index: int, model_uri: str, pollers: int) -> None:
        self.log = [f"node-{model_uri[-6:].replace('/', '-')}-{index}-{process}.log" for process in range(2)]
        self._shop = shop
        cache = str(shop.directory / self.log[0]) + ".cache"
        module = "tests.serving.rollout.sharing.pollers"
        arguments = (cache, model_uri, str(pollers // 2), str(INTERVAL_S))
        self.processes = [shop.start(sys.executable, "-m", module, *arguments, log=log) for log in self.log]

    def lines(self, word: str) -> list[Line]:
        lines = [line.split() for log in self.log for line in self._shop.output(log).splitlines()]
        found = (Line(words[:-2], int(words[-2]), float(words[-1])) for words in lines if words[:1] == [word])
        return sorted(found, key=lambda line: line.at)

    def seen(self, version: int) -> int:
        return sum(line.words == ["seen", str(version)] for line in self.lines("seen"))

    def kill_elected(self) -> tuple[int, float]:
        pid = self.lines("poll")[-1].pid
        os.kill(pid, signal.SIGKILL)
        return pid, time.time()

    def polls_of_others(self, pid: int, since: float) -> list[Line]:
        return [line for line in self.lines("poll") if line.pid != pid and line.at > since]


def register(shop: Workshop, name: str, number: int) -> None:
    """Register so many versions of one bundle, directly in the server's database, which takes milliseconds each."""
    from mlflow import MlflowClient

    folder = shop.directory / name
    folder.mkdir()
    (folder / "model.onnx").write_bytes(CARTPOLE_BUNDLE.graph)
    (folder / "policy.json").write_bytes(CARTPOLE_BUNDLE.policy)
    client = MlflowClient(*[f"sqlite:///{shop.directory}/mlflow.db"] * 2)
    client.create_registered_model(name)
    for _ in range(number):
        client.create_model_version(name, folder.as_uri(), tags=digest_tags(CARTPOLE_BUNDLE))


def promote(shop: Workshop, name: str, version: int) -> None:
    with pytest.warns(FutureWarning):
        shop.client().transition_model_version_stage(name, str(version), "Production", archive_existing_versions=True)


@pytest.mark.parametrize(
    ("nodes", "pollers", "versions", "intervals"),
    [(1, 6, 3, 2), pytest.param(10, 20, 1000, 10, marks=[pytest.mark.long, pytest.mark.timeout(900)])],
    ids=["1 node", "10 nodes"],
)
def test_each_node_polls_once_an_interval_whatever_the_number_of_its_replicas(
    tracked_workshop: Workshop, nodes: int, pollers: int, versions: int, intervals: int
) -> None:
    shop, name = tracked_workshop, f"polled-by-{nodes}"
    register(shop, name, versions)
    promote(shop, name, 1)
    started = [Node(shop, index, f"models:/{name}/Production", pollers) for index in range(nodes)]
    processes: list[subprocess.Popen[str]] = [process for node in started for process in node.processes]
    try:
        await_true(lambda: all(node.seen(1) == pollers for node in started), "all replicas have seen version 1", 120)
        began = time.time()
        await_true(lambda: time.time() > began + intervals * INTERVAL_S, "some intervals pass", 240)
        promote(shop, name, 2)
        promoted = time.time()
        await_true(lambda: all(node.seen(2) == pollers for node in started), "all replicas have seen version 2", 60)
        latest = max(line.at for node in started for line in node.lines("seen"))
        total = 0
        for node in started:
            polls = [line.at for line in node.lines("poll") if line.at > began]
            total += len(polls)
            gaps = [after - before for before, after in itertools.pairwise(polls)]
            assert min(gaps) >= SHORTEST_PAUSE_S, "a node has polled more often than once an interval"
            pids = {line.pid for line in node.lines("poll") if line.at > began}
            assert len(pids) == 1, "more than one process of a node has polled"
        elapsed = time.time() - began
        report = [f"{nodes * pollers} replicas, {versions} versions: {total / elapsed:.1f} polls a second"]
        report.append(f"{latest - promoted:.2f} s from a promotion until the last one saw it")
        for node in started:
            pid, killed = node.kill_elected()
            await_true(lambda pid=pid, killed=killed, node=node: node.polls_of_others(pid, killed), "another polls", 60)
            takeover_s = node.polls_of_others(pid, killed)[0].at - killed
            report.append(f"{takeover_s:.2f} s from the kill of one that polls until another polled")
        promote(shop, name, 3)
        await_true(lambda: all(node.seen(3) == pollers // 2 for node in started), "all others see version 3", 60)
        assert not [line for node in started for line in node.lines("failed")]
        sys.stderr.write("\n".join(["", *report, ""]))  # for `pytest -s`
    finally:
        for process in processes:
            process.kill()
            process.wait()
