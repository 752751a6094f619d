"""A champion and a challenger on a server of three replicas, and clients that play whole episodes with it."""

import asyncio
import json
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq
import requests

from serving.client.async_client import AsyncPolicyClient
from serving.client.client import PolicyClient
from serving.experience.episodes import EpisodeHasher
from serving.experiments.assignment import CHALLENGER, arm_of
from serving.experiments.experiment import Experiment, Step, tag_key
from tests.faults.arena import CONTRARY, GOOD, Registry, Server
from tests.workshop import await_true

REPLICAS, CONNECTIONS = 3, 16
STEPS = 8
TILTED = [0.0, 0.0, 1.0, 0.0]
ACTIONS = {1: 1, 2: 0}
"""The action that each version takes for TILTED."""
RELEASED_WITHIN_S = 10.0


class Played(NamedTuple):
    """One episode as its client saw it."""

    name: str
    began: float
    versions: tuple[int, ...]
    """The version that answered each step."""
    seconds: tuple[float, ...]
    """How long each step took."""


class Contest:
    """Versions 1 and 2, which act in contrary ways, 1 in Production; a server; and the experiment's tag.

    Args:
        registry: the registry.
        name: the name of the model, one for each contest.
        directory: the cache and the experience.
    """

    def __init__(self, registry: Registry, name: str, directory: Path) -> None:
        self.registry, self.name, self.directory = registry, name, directory
        for bundle in (GOOD, CONTRARY):
            registry.register(bundle, name=name)
        registry.promote(1, name)
        self.state: Experiment | None = None
        options = ("--experience-uri", str(directory / "experience"))
        self.server = Server(registry, REPLICAS, *options, cache=directory / "cache", name=name)

    def start(self, share: float, expires_in_s: float = 600.0, **changes: Any) -> Experiment:
        """Begin an experiment once all replicas have loaded the challenger, and return it."""
        begins = time.time() + 10
        state = Experiment(f"e{begins:.0f}", f"salt{begins}", 1, 2, (Step(begins, share),), begins + expires_in_s)
        self.write(replace(state, **changes))
        self.server.await_models(lambda model: (model["experiment"] or {}).get("share") == share, "all take part", 60)
        return state

    def write(self, state: Experiment, **changes: Any) -> float:
        """Write the experiment's tag, as `pipeline` does, and return when it was done."""
        self.state = replace(state, **changes)
        key = tag_key(stage="Production")
        self.registry.client().set_model_version_tag(self.name, "1", key, self.state.to_tag())
        return time.time()

    def assigned(self, name: str) -> int:
        """The version that an episode is assigned to."""
        assert self.state is not None
        share = self.state.shares[-1].share
        return 2 if arm_of(self.state.salt, EpisodeHasher()(name), share) == CHALLENGER else 1

    def unpinned(self, name: str, times: int) -> set[int]:
        """The versions that answer the first step of an episode, each time over a new connection."""
        headers = {"X-Episode-Id": name, "X-Episode-Step": "0"}
        body = json.dumps({"observation": TILTED})
        answers = [requests.post(self.server.url, body, headers=headers, timeout=10) for _ in range(times)]
        return {int(answer.headers["X-Model-Version"]) for answer in answers}

    def recorded(self) -> pa.Table:
        """The decisions in the tables, once all segments are converted."""
        journals = self.directory / "cache" / "experience"
        await_true(lambda: not _with_decisions(journals), "all segments have become tables", 120)
        columns = ["episode", "step", "version", "replica", "experiment", "arm", "share"]
        files = sorted((self.directory / "experience" / "decisions").rglob("*.parquet"))
        return pa.concat_tables([pq.ParquetFile(file).read(columns=columns) for file in files])

    def end(self) -> None:
        self.server.end()


def _with_decisions(journals: Path) -> list[Path]:
    from tests.faults.recorder import _has_decisions

    return [path for path in journals.glob("*/*.segment") if _has_decisions(path)]


class Clients:
    """16 connections that play one episode after another: 8 of PolicyClient in threads, 8 of AsyncPolicyClient.

    Args:
        url: the server.
        number: how many episodes they play; None to play until the context ends.
        pause_s: the pause before each step.
    """

    def __init__(self, url: str, number: int | None = None, pause_s: float = 0.0) -> None:
        self._url, self._pause_s = url, pause_s
        self._left, self._lock, self._ended = number, threading.Lock(), threading.Event()
        self._pool = ThreadPoolExecutor(CONNECTIONS // 2 + 1)
        self._playing: list[Any] = []
        self.played: list[Played] = []

    def __enter__(self) -> Self:
        self._playing = [self._pool.submit(self._play) for _ in range(CONNECTIONS // 2)]
        self._playing.append(self._pool.submit(lambda: asyncio.run(self._play_async())))
        return self

    def __exit__(self, *exception: object) -> None:
        if self._left is None or exception[0] is not None:
            self._ended.set()
        try:
            for each in self._playing:
                each.result()  # a request that was never answered is raised here
        finally:
            self._ended.set()
            self._pool.shutdown()

    def _names(self) -> Iterator[str]:
        while not self._ended.is_set():
            with self._lock:
                if self._left == 0:
                    return
                self._left = None if self._left is None else self._left - 1
            yield f"episode-{time.monotonic_ns()}-{threading.get_ident()}"

    def _play(self) -> None:
        client = PolicyClient(self._url, timeout_s=10, total_timeout_s=60, retries=20)
        for name in self._names():
            began, versions, seconds = time.time(), [], []
            with client.episode(name) as episode:
                for _ in range(STEPS):
                    time.sleep(self._pause_s)
                    start = time.perf_counter()
                    action = episode.act(TILTED)
                    seconds.append(time.perf_counter() - start)
                    versions.append(self._checked(episode.version, action))
                    episode.reward(1.0)
                episode.end("terminated")
            self.played.append(Played(name, began, tuple(versions), tuple(seconds)))

    async def _play_async(self) -> None:
        async with AsyncPolicyClient(self._url, timeout_s=10, total_timeout_s=60, retries=20) as client:
            await asyncio.gather(*(self._play_one_by_one(client) for _ in range(CONNECTIONS // 2)))

    async def _play_one_by_one(self, client: AsyncPolicyClient) -> None:
        for name in self._names():
            began, versions, seconds = time.time(), [], []
            async with client.episode(name) as episode:
                for _ in range(STEPS):
                    await asyncio.sleep(self._pause_s)
                    start = time.perf_counter()
                    action = await episode.act(TILTED)
                    seconds.append(time.perf_counter() - start)
                    versions.append(self._checked(episode.version, action))
                    episode.reward(1.0)
                await episode.end("terminated")
            self.played.append(Played(name, began, tuple(versions), tuple(seconds)))

    @staticmethod
    def _checked(version: int | None, action: Any) -> int:
        assert version is not None
        assert ACTIONS[version] == int(action), f"version {version} took the action {action}"
        return version


@dataclass(frozen=True)
class Figures:
    """What a number of episodes shows."""

    episodes: int
    challengers: int
    changed: int
    """Episodes that more than one version answered."""
    median_ms: dict[int, float]
    longest_ms: float

    @classmethod
    def of(cls, played: Sequence[Played]) -> Self:
        seconds = defaultdict(list)
        for each in played:
            for version, took in zip(each.versions, each.seconds, strict=True):
                seconds[version].append(took * 1e3)
        return cls(
            len(played),
            sum(each.versions[0] == 2 for each in played),
            sum(len(set(each.versions)) > 1 for each in played),
            {version: round(statistics.median(each), 1) for version, each in sorted(seconds.items())},
            round(max(map(max, seconds.values())), 1),
        )
