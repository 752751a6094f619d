"""The closed loop, step by step. Each step is a command that a user could have typed."""

import contextlib
import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import click
import requests

from examples.closed_loop import chart
from examples.closed_loop.players import Players
from pipeline.errors import PipelineError
from pipeline.experience.whole_episodes import read_current
from pipeline.journey import MODEL, await_ready, background, mlflow_server, python, run, stages_of
from serving.experience.store import open_store

#: Environment steps of the first version: four iterations of PPO.
_TOO_LITTLE = 4096

#: Episodes of the first version that the second one learns from, and of the second one in the chart.
_RECORDED, _SHOWN = 150, 30

#: PPO's environment steps after learning from what was recorded.
_FINE_TUNING = 60_000

#: How the second version earns its traffic. An episode takes seconds, and its decisions are recorded after 10 s.
_CANARY = ["--share", "0.2,0.5", "--step-episodes", "20", "--margin", "10%"]
_CANARY += ["--reward-wait", "20s", "--record-wait", "20s", "--every", "2s", "--expires", "30m"]

#: Seconds for recorded episodes to become whole, and for clients to play what a step needs.
_TIMEOUT_S, _PLAY_TIMEOUT_S = 300.0, 900.0


@dataclass(eq=False)
class NotHappened(PipelineError):
    """The loop waited for something in vain."""

    what: str
    timeout_s: float

    template: ClassVar[str] = "Not within {timeout_s:.0f} s: {what}."


@dataclass(eq=False)
class NotBetter(PipelineError):
    """The version that learned has no higher online return."""

    before: float
    after: float

    template: ClassVar[str] = "The loop did not improve the online return: {before:.1f} before, {after:.1f} after."


@dataclass(frozen=True)
class Loop:
    """A closed loop in a working directory.

    Attributes:
        mlflow_url: The URL of the MLflow server.
        policy_url: The URL of the policy server.
        experience: The directory that it records to.
        players: The simulated clients.
        seed: The seed of training.
    """

    mlflow_url: str
    policy_url: str
    experience: Path
    players: Players
    seed: int

    def gather(self) -> None:
        """Let clients play until enough episodes are recorded and whole."""
        say(f"Simulated clients play {_RECORDED} episodes against version 1")
        self._play(1, _RECORDED)
        deadline = time.monotonic() + _TIMEOUT_S
        while self._whole_episodes() < _RECORDED:
            if time.monotonic() > deadline:
                raise NotHappened(f"{_RECORDED} episodes are recorded", _TIMEOUT_S)
            time.sleep(5)  # segments of the journal are sealed after 10 s
            run(python("pipeline", "experience", "compact", str(self.experience), "--reward-wait-s", "1"))

    def learn(self) -> int:
        """Train the next version from what was recorded, then with PPO; return its number."""
        learning = (
            "--experience",
            str(self.experience),
            "--algorithm",
            "marwil",
            "--then",
            "ppo",
            "--unreported",
            "drop",
        )
        origin = ("--from", f"models:/{MODEL}/1", "--max-env-steps", str(_FINE_TUNING), "--seed", str(self.seed))
        run(python("pipeline", "train", *learning, *origin, "--epochs", "30", "--evaluation-episodes", "30"))
        return max(stages_of(self.mlflow_url))

    def earn_traffic(self, version: int) -> None:
        """Bring a version into service. Clients play until the server answers with it.

        It computes what was recorded, passes the gate in simulation, and answers a share of the episodes. Their returns
        promote it.
        """
        run(python("pipeline", "experiment", "shadow", str(version), "--experience", str(self.experience)))
        with self.players.playing():
            run(python("pipeline", "promote", str(version), "--canary", "--experience", str(self.experience), *_CANARY))
        self._play_until(lambda: self.served_version() == version, f"the server answers with version {version}")

    def show(self, version: int) -> None:
        """Let clients play against the new version."""
        say(f"Simulated clients play {_SHOWN} episodes against version {version}")
        self._play(version, _SHOWN)

    def served_version(self) -> int:
        """Return the version that the server answers with."""
        answer = requests.get(f"{self.policy_url}/model", timeout=10)
        answer.raise_for_status()
        return int(answer.json()["version"])

    def _play(self, version: int, episodes: int) -> None:
        """Let clients play until a version has acted in so many episodes."""
        enough = f"{episodes} episodes of version {version} are played"
        self._play_until(lambda: len(self.players.returns_of(version)) >= episodes, enough)

    def _play_until(self, condition: Callable[[], bool], what: str) -> None:
        """Let clients play until a condition holds. Raises NotHappened, and what a client raised."""
        deadline = time.monotonic() + _PLAY_TIMEOUT_S

        def holds() -> bool:
            if time.monotonic() > deadline:
                raise NotHappened(what, _PLAY_TIMEOUT_S)
            return condition()

        self.players.until(holds)

    def _whole_episodes(self) -> int:
        current = read_current(open_store(str(self.experience)), MODEL) if self.experience.exists() else None
        return int(current["episodes"]) if current else 0


def closed_loop(seed: int, output: Path) -> None:
    """Run the loop in a directory of its own, with servers that end with it.

    Args:
        seed: The seed of training and of the clients.
        output: The directory for the chart and the figures.

    Raises:
        CommandFailed, NotReady, NotHappened: If a step fails.
        NotBetter: If the second version has no higher online return.
    """
    output = output.absolute()
    with _working_directory() as directory:
        _run_in(directory, seed, output)


def _run_steps(loop: Loop, output: Path) -> None:
    """Run all steps, write the chart and the figures, and raise NotBetter if the return is not higher."""
    loop.gather()
    version = loop.learn()
    loop.earn_traffic(version)
    loop.show(version)
    returns = {each: loop.players.returns_of(each) for each in (1, version)}
    means = {each: statistics.fmean(found) for each, found in returns.items()}
    output.mkdir(parents=True, exist_ok=True)
    chart.draw(loop.players.played, output / "online-return.png")
    figures = {str(each): {"episodes": len(returns[each]), "return_mean": means[each]} for each in returns}
    (output / "loop.json").write_text(json.dumps({"seed": loop.seed, "versions": figures}, indent=2))
    for each, found in returns.items():
        say(f"Version {each}: mean online return {means[each]:.1f} of {len(found)} episodes")
    say(f"Chart: {output / 'online-return.png'}")
    if means[version] <= means[1]:
        raise NotBetter(means[1], means[version])


def _run_in(directory: Path, seed: int, output: Path) -> None:
    """Run the loop with all its files in a directory."""
    mlflow_port, serving_port = free_port(), free_port()
    mlflow_url, policy_url = f"http://127.0.0.1:{mlflow_port}", f"http://127.0.0.1:{serving_port}/{MODEL}"
    experience = directory / "experience"
    os.environ["MLFLOW_TRACKING_URI"] = mlflow_url
    with contextlib.ExitStack() as stack:
        await_ready(stack.enter_context(mlflow_server(mlflow_port)), f"{mlflow_url}/health")
        first = ("--max-env-steps", str(_TOO_LITTLE), "--evaluation-interval", str(_TOO_LITTLE), "--seed", str(seed))
        run(python("pipeline", "train", *first, "--evaluation-episodes", "20"))
        run(python("pipeline", "promote", "1", "--force", "--episodes", "10"))
        recording = ("--experience-uri", str(experience), "--cache-dir", str(directory / "cache"))
        server = background(python("serving", "run", "--port", str(serving_port), *recording))
        await_ready(stack.enter_context(server), f"{policy_url}/health")
        players = stack.enter_context(Players(policy_url, 1_000_000 * (seed + 1)))
        _run_steps(Loop(mlflow_url, policy_url, experience, players, seed), output)


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def say(message: str) -> None:
    """Print what the loop does."""
    click.secho(f"\n{message}", bold=True)


@contextlib.contextmanager
def _working_directory() -> Iterator[Path]:
    """Yield an empty working directory, which is deleted at the end of the block."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="closed-loop-") as name:
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)
