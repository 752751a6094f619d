"""Simulated clients: threads that play episodes of CartPole against a policy server, and report what followed."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

import gymnasium

from serving.client import PolicyClient


@dataclass(frozen=True)
class Played:
    """An episode that a client played."""

    ended_at: float
    """Seconds since 1970."""
    version: int
    total: float
    """The sum of its rewards."""


@dataclass
class Players:
    """A context manager with threads that play while `playing` or `until` lets them.

    In every third episode, actions are sampled, so that what is recorded shows what other actions lead to.

    Args:
        url: The URL of the policy.
        seed: The first seed of the episodes.
        number: How many clients play at once.
    """

    url: str
    seed: int
    number: int = 2
    played: list[Played] = field(default_factory=list)
    _may_play: threading.Event = field(default_factory=threading.Event)
    _is_over: threading.Event = field(default_factory=threading.Event)
    _failures: list[Exception] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._play, args=(number,)) for number in range(self.number)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._may_play.set()
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def playing(self) -> Iterator[None]:
        """Play within the block. Episodes that have begun are played to their ends afterwards."""
        self._may_play.set()
        try:
            yield
        finally:
            self._may_play.clear()
        self.check()

    def until(self, condition: Callable[[], bool]) -> None:
        """Play until a condition holds. Raises what a client raised."""
        with self.playing():
            while not condition():
                self.check()
                time.sleep(0.1)

    def returns_of(self, version: int) -> list[float]:
        """Return the returns of the episodes of a version."""
        return [each.total for each in self.played if each.version == version]

    def check(self) -> None:
        """Raise what a client raised."""
        if self._failures:
            raise self._failures[0]

    def _play(self, number: int) -> None:
        seed = self.seed + number
        try:
            with PolicyClient(self.url) as client, gymnasium.make("CartPole-v1") as environment:
                while self._may_play.wait() and not self._is_over.is_set():
                    self._play_episode(client, environment, seed)
                    seed += self.number
        except Exception as error:  # noqa: BLE001  # the main thread raises it
            self._failures.append(error)

    def _play_episode(self, client: PolicyClient, environment: "gymnasium.Env[object, object]", seed: int) -> None:
        observation, _ = environment.reset(seed=seed)
        terminated = truncated = False
        with client.episode() as episode:
            while not (terminated or truncated):
                action = episode.act(observation, explore=seed % 3 == 0)
                observation, reward, terminated, truncated, _ = environment.step(action)
                episode.reward(float(reward))
            episode.end("terminated" if terminated else "truncated", observation)
        self.played.append(Played(time.time(), int(episode.version or 0), float(episode.total_reward or 0)))
