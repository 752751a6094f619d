"""Playing greedy episodes: a policy and an environment become returns."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.environments import Environment

#: A batch of observations `[batch, *shape]` -> a batch of actions in the environment's own space.
Act = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """What greedy episodes returned, in the order of their seeds.

    Attributes:
        returns: The sum of rewards of each episode.
        first_seed: Episode i was reset with the seed `first_seed + i`.
    """

    returns: tuple[float, ...]
    first_seed: int

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns over these episodes."""
        return float(np.std(self.returns))

    @property
    def minimum(self) -> float:
        """The worst return."""
        return min(self.returns)

    @property
    def maximum(self) -> float:
        """The best return."""
        return max(self.returns)

    @property
    def median(self) -> float:
        """The middle of the returns."""
        return float(np.median(self.returns))

    @property
    def is_constant(self) -> bool:
        """Whether every episode returned the same: of a policy that reached its target, nothing is left to gain."""
        return self.minimum == self.maximum

    def __str__(self) -> str:
        return f"{self.mean:.1f} +- {self.std:.1f} (minimum {self.minimum:.1f}) over {len(self.returns)} episodes"


def play(act: Act, environment: Environment, episodes: int, first_seed: int) -> Evaluation:
    """Play episodes side by side, one batch of observations per step, each to its end.

    Args:
        act: The policy.
        environment: Where to play.
        episodes: How many.
        first_seed: Seed of the first episode's reset; the others count up from it.
    """
    returns = np.zeros(episodes)
    for alive, _, rewards in _steps(act, environment, episodes, first_seed):
        returns[alive] += rewards
    return Evaluation(tuple(returns.tolist()), first_seed)


def observations(act: Act, environment: Environment, count: int, first_seed: int) -> np.ndarray:
    """At least `count` observations (unless 32 episodes end sooner), `[n, *shape]`, as the policy meets them."""
    collected: list[np.ndarray] = []
    for _, batch, _ in _steps(act, environment, 32, first_seed):
        collected.append(batch)
        if sum(map(len, collected)) >= count:
            break
    return np.concatenate(collected)


def _steps(
    act: Act, environment: Environment, episodes: int, first_seed: int
) -> Iterator[tuple[list[int], np.ndarray, list[float]]]:
    """Of each step: the episodes still going, their observations, their rewards."""
    with contextlib.ExitStack() as stack:
        environments = [stack.enter_context(contextlib.closing(environment.make())) for _ in range(episodes)]
        current: dict[int, Any] = {
            index: each.reset(seed=first_seed + index)[0] for index, each in enumerate(environments)
        }
        while current:
            alive = list(current)
            batch = np.stack(list(current.values()))
            rewards = []
            for index, action in zip(alive, act(batch), strict=True):
                observation, reward, terminated, truncated, _ = environments[index].step(action)
                rewards.append(float(reward))
                current[index] = observation
                if terminated or truncated:
                    del current[index]
            yield alive, batch, rewards
