"""An experiment with a real server, real clients and the real commands: it ends by itself, and as it should."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.registry.registry import resolve
from tests.faults.arena import Registry, Server
from tests.faults.reporters import Reporters
from tests.serving.policies import CARTPOLE_BUNDLE
from tests.workshop import await_true

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1200)]

NAME = "cartpole-ppo"
RETURNS = {1: 100.0, 2: 50.0, 3: 110.0}
"""What an episode returns by the version that acts in it. The graphs are the same; the clients report."""
TIMES = ("--reward-wait", "5s", "--record-wait", "20s", "--every", "2s")
RULES = ("--share", "0.2,0.5", "--step-episodes", "20", "--margin", "20%")
LATER = ("--minimum-episodes", "600", "--budget", "20000")


class Experiments:
    """A server that records, and the commands."""

    def __init__(self, directory: Path) -> None:
        (directory / "registry").mkdir()
        self.registry = Registry(directory / "registry")
        for _ in RETURNS:
            self.registry.register(CARTPOLE_BUNDLE, name=NAME)
        self.registry.promote(1, NAME)
        self.uri = str(directory / "experience")
        options = ("--experience-uri", self.uri)
        self.server = Server(self.registry, 2, *options, cache=directory / "cache", name=NAME)
        self.registry.shop.environment["MLFLOW_TRACKING_URI"] = self.registry.url
        self.url = self.server.url

    def command(self, *arguments: str, timeout_s: float = 400) -> str:
        done = self.registry.shop.python("pipeline", *arguments, timeout_s=timeout_s)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def play_before(self) -> None:
        """Let the champion play, until its returns are recorded as whole episodes."""
        with Reporters(self.url, RETURNS) as players:
            await_true(lambda: sum(players.episodes.values()) >= 200, "200 episodes", 120)
            await_true(self._is_recorded, "some of them are converted", 120)
        self.command("experience", "compact", self.uri, "--reward-wait-s", "1")

    def _is_recorded(self) -> bool:
        return any(Path(self.uri).glob("manifests/*/*/*.json"))

    def served(self) -> int:
        return int(next(iter(self.server.models().values()))["version"])

    def challenger(self) -> int | None:
        """The challenger that all replicas have loaded, and let act in a share of the episodes."""
        found = [model["experiment"] or {} for model in self.server.models().values()]
        numbers = {each["challenger"] if each.get("share") else None for each in found}
        return numbers.pop() if len(numbers) == 1 else None

    def close(self) -> None:
        self.server.end()
        self.registry.shop.end()


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiments]:
    found = Experiments(tmp_path_factory.mktemp("experiment"))
    try:
        found.server.wait_up()
        found.play_before()
        yield found
    finally:
        found.close()


def test_a_challenger_worse_by_half_is_rolled_back_by_itself(experiments: Experiments) -> None:
    with Reporters(experiments.url, RETURNS) as players:
        said = experiments.command("experiment", "start", "2", "--experience", experiments.uri, *TIMES, *RULES)
    sys.stdout.write(f"\n{said}\n{dict(players.episodes)} episodes by version\n")
    assert "version 2 against 1: rolled back: return " in said
    assert not players.failed
    assert players.episodes[2] < players.episodes[1]
    assert experiments.served() == 1
    assert "experiment" in experiments.command("history")


def test_a_better_challenger_is_promoted_by_itself_after_the_gate_and_its_share_has_risen(
    experiments: Experiments,
) -> None:
    canary = ("--canary", "--experience", experiments.uri, "--episodes", "5")
    with Reporters(experiments.url, RETURNS) as players:
        # More episodes than one look at the first share can find, so that the share rises before the decision.
        said = experiments.command("promote", "3", *canary, *TIMES, *RULES, *LATER)
        await_true(lambda: experiments.served() == 3, "the server serves it", 30)
    sys.stdout.write(f"\n{said}\n{dict(players.episodes)} episodes by version\n")
    assert "Share 0.5 from " in said
    assert "version 3 against 1: promoted: return " in said
    assert not players.failed
    with experiments.registry.shop.inside():
        promoted = resolve(f"models:/{NAME}/Production")
    assert promoted.version == 3
    assert json.loads(promoted.tags["gate.stage.Production"])["passed"]


def test_a_controller_waits_for_a_registry_that_is_away_and_decides_when_it_is_back(experiments: Experiments) -> None:
    options = ("--experience", experiments.uri, *TIMES, *RULES)
    shop, champion = experiments.registry.shop, experiments.served()
    returns = ("--return-mean", str(RETURNS[champion]), "--return-std", "20")
    with Reporters(experiments.url, RETURNS):
        command = (sys.executable, "-m", "pipeline", "experiment", "start", "2", *options)
        process = shop.start(*command, *returns, log="controller.log")
        await_true(lambda: "MLflow run" in shop.output("controller.log"), "it has started", 120)
        await_true(lambda: experiments.challenger() == 2, "all replicas let it act", 60)
        experiments.registry.stop()
        await_true(lambda: "The experiment goes on" in shop.output("controller.log"), "it says so", 120)
        experiments.registry.start()
        assert process.wait(400) == 0, shop.output("controller.log")
    sys.stdout.write(shop.output("controller.log"))
    assert "can be reached again" in shop.output("controller.log")
    assert f"version 2 against {champion}: rolled back: " in shop.output("controller.log")
