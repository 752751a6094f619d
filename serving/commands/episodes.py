"""Plays episodes with a policy that is served over HTTP."""

import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium

from serving.client.actions import element
from serving.client.client import PolicyClient
from serving.client.core import Reply, Request
from serving.client.episodes.episode import Episode as Played
from serving.policy.environments import was_cut
from serving.policy.errors import EnvironmentNotMade
from serving.policy.spaces import space_to_json

MakeEnvironment = Callable[[], gymnasium.Env[Any, Any]]

MOST_IN_LOCKSTEP = 1000
"""The most episodes that run at once. The names and observations of many more would exceed the server's limits."""


class Step(NamedTuple):
    """One step: its number from 1, the observation, the server's action, and whether it ended the episode."""

    number: int
    observation: Any
    action: Any
    done: bool


class Episode(NamedTuple):
    """A finished episode.

    Attributes:
        seed: the seed that it was reset with.
        episode_return: the sum of its rewards.
        steps: its number of steps.
        cut: whether it did not end, and was cut after this number of steps.
        recorded: whether the server recorded its outcome as experience.
    """

    seed: int
    episode_return: float
    steps: int
    cut: bool
    recorded: bool = False


class TimedClient(PolicyClient):
    """Records the latency of each request for actions, in seconds, and the versions that answered."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.latencies_s: list[float] = []
        self.versions: set[int] = set()

    def _send(self, request: Request) -> Reply:
        start = time.perf_counter()
        reply = super()._send(request)
        if request.answered_by is not None:
            self.latencies_s.append(time.perf_counter() - start)
            self.versions.add(reply.version)
        return reply


class _Running:
    """An episode in progress, which is reported to the server."""

    def __init__(self, environment: gymnasium.Env[Any, Any], seed: int, played: Played) -> None:
        self.environment, self.seed, self.played = environment, seed, played
        self._action_space = space_to_json(environment.action_space)
        self.observation, _ = environment.reset(seed=seed)
        self.steps, self._return, self.done = 0, 0.0, False

    def step(self, action: Any) -> Step:
        observed, action = self.observation, element(self._action_space, action)
        self.observation, reward, terminated, truncated, _ = self.environment.step(action)
        self.steps, self._return, self.done = self.steps + 1, self._return + float(reward), terminated or truncated
        self.played.reward(float(reward))
        if self.done:
            self.played.end("terminated" if terminated else "truncated", self.observation)
        return Step(self.steps, observed, action, self.done)

    def finished(self) -> Episode:
        return Episode(self.seed, self._return, self.steps, was_cut(self.environment), bool(self.played.recorded))


def play_sequentially(
    client: PolicyClient,
    make: MakeEnvironment,
    seeds: range,
    on_step: Callable[[Step], None] | None,
    *,
    explore: bool = False,
) -> Iterator[Episode]:
    """Play one episode per seed, one after the other with a request per step, and yield each when it ends.

    `on_step` is called after each step; `explore` samples the actions.

    Raises:
        RequestRefused, ServerUnreachable: as `PolicyClient.act`.
    """
    environment = make()
    try:
        for seed in seeds:
            sampling, episode = _sampling(seed, explore=explore), _Running(environment, seed, client.episode())
            while not episode.done:
                step = episode.step(episode.played.act(episode.observation, **next(sampling)))
                if on_step is not None:
                    on_step(step)
            yield episode.finished()
    finally:
        environment.close()  # type: ignore[no-untyped-call]


def play_in_lockstep(
    client: PolicyClient, make: MakeEnvironment, seeds: range, *, explore: bool = False
) -> Iterator[Episode]:
    """Play one episode per seed, with one request per step for all that run, and yield each when it ends.

    As many run at once as environments can be made, at most MOST_IN_LOCKSTEP.

    Raises:
        RequestRefused, ServerUnreachable: as `PolicyClient.act_batch`.
    """
    sampling = _sampling(seeds.start, explore=explore)
    waiting = deque(seeds)
    environments = _made(make, min(len(seeds), MOST_IN_LOCKSTEP))
    running = [_Running(environment, waiting.popleft(), client.episode()) for environment in environments]
    while running:
        observations, played = [each.observation for each in running], [each.played for each in running]
        actions = client.act_batch(observations, episodes=played, **next(sampling))
        started = []
        for each, action in zip(running, actions, strict=True):
            if each.step(action).done:
                yield each.finished()
                if waiting:
                    started.append(_Running(each.environment, waiting.popleft(), client.episode()))
                else:
                    each.environment.close()  # type: ignore[no-untyped-call]
        running = [*(each for each in running if not each.done), *started]


def _made(make: MakeEnvironment, count: int) -> Iterator[gymnasium.Env[Any, Any]]:
    """Yield at most `count` environments; fewer, but at least one, if no more can be made."""
    yield make()
    with contextlib.suppress(EnvironmentNotMade):  # one that binds a port, for example, exists once only
        for _ in range(count - 1):
            yield make()


def _sampling(seed: int, *, explore: bool) -> Iterator[dict[str, Any]]:
    """Yield the options of each step: none, or `explore` with a seed per step."""
    noise = random.Random(seed)  # noqa: S311 - not for cryptography
    while True:
        yield {"explore": True, "seed": noise.randrange(2**31)} if explore else {}
