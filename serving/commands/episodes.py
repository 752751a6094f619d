"""Environments played with a policy that is served over HTTP."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium

from serving.client.client import PolicyClient

MakeEnvironment = Callable[[], gymnasium.Env[Any, Any]]


class Step(NamedTuple):
    """One exchange: what was observed, what the server answered, and whether the episode ended with it."""

    number: int
    observation: Any
    action: Any
    done: bool


OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Episode:
    """A finished episode: its seed, its return (the sum of its rewards) and its number of steps."""

    seed: int
    episode_return: float
    steps: int


SEEDS = 2**31
"""Seeds that draw the noise of a step, from those of its episodes and the steps before it."""


def play_one(
    client: PolicyClient,
    environment: gymnasium.Env[Any, Any],
    seed: int,
    on_step: OnStep,
    *,
    explore: bool = False,
) -> Episode:
    """Play one episode in a closed loop: a request for each step, its actions sampled with `explore`.

    Raises:
        RequestRefused, ServerUnreachable: as `PolicyClient.act`.
    """
    client.reset()
    noise = random.Random(seed) if explore else None  # noqa: S311 - of a game
    observation, _ = environment.reset(seed=seed)
    total, steps, done = 0.0, 0, False
    while not done:
        action = client.act(observation, **_sampling(noise))
        steps += 1
        following, reward, terminated, truncated, _ = environment.step(action)
        done = terminated or truncated
        on_step(Step(steps, observation, action, done))
        total, observation = total + float(reward), following
    return Episode(seed, total, steps)


def play_together(
    client: PolicyClient, make: MakeEnvironment, seeds: range, *, explore: bool = False
) -> Iterator[Episode]:
    """Play all episodes at once, a request for each step of all of them; yield each when it ends.

    With `explore` actions are sampled.

    Raises:
        RequestRefused, ServerUnreachable: as `PolicyClient.act_batch`.
    """
    client.reset()
    noise = random.Random(seeds.start) if explore else None  # noqa: S311 - of a game
    running = [_Running(make(), seed) for seed in seeds]
    while running:
        observations, names = [each.observation for each in running], [each.seed for each in running]
        actions = client.act_batch(observations, episodes=names, **_sampling(noise))
        for each, action in zip(running, actions, strict=True):
            each.step(action)
        yield from (each.episode() for each in running if each.done)
        running = [each for each in running if not each.done]


def _sampling(noise: random.Random | None) -> dict[str, Any]:
    """Return how a step's action is chosen: sampled with a seed of its own, or the most probable one."""
    return {} if noise is None else {"explore": True, "seed": noise.randrange(SEEDS)}


class _Running:
    def __init__(self, environment: gymnasium.Env[Any, Any], seed: int) -> None:
        self.done = False
        self.observation, _ = environment.reset(seed=seed)
        self._environment, self.seed = environment, seed
        self._return, self._steps = 0.0, 0

    def step(self, action: Any) -> None:
        self.observation, reward, terminated, truncated, _ = self._environment.step(action)
        self._return, self._steps = self._return + float(reward), self._steps + 1
        self.done = terminated or truncated
        if self.done:
            self._environment.close()  # type: ignore[no-untyped-call]

    def episode(self) -> Episode:
        return Episode(self.seed, self._return, self._steps)
