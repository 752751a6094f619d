"""Playing greedy episodes: a policy and an environment become returns."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.environments.make import Environment
from pipeline.environments.nested_spaces import stack
from pipeline.evaluation.player import Player, State
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.training.worker_process import SideProcess
from serving.policy.tensors import OBSERVATIONS


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


def play(player: Player, environment: Environment, episodes: int, first_seed: int) -> Evaluation:
    """Play episodes side by side, one batch of observations per step, each to its end.

    Args:
        player: The policy.
        environment: Where to play.
        episodes: How many.
        first_seed: Seed of the first episode's reset; the others count up from it.
    """
    returns = np.zeros(episodes)
    for alive, _, _, rewards in _steps(player, environment, episodes, first_seed):
        returns[alive] += rewards
    return Evaluation(tuple(returns.tolist()), first_seed)


def play_beside(
    side: SideProcess, policy: ExportablePolicy, environment: Environment, episodes: int, first_seed: int
) -> Evaluation:
    """As `play`, with half of the episodes in the side process, if there is one.

    Where each half is played changes nothing: not even the sizes of batches, with which networks round differently.
    """
    if not side.has_begun:
        return play(policy.player, environment, episodes, first_seed)
    half = episodes // 2
    second = side.call(_play, policy, environment, episodes - half, first_seed + half)
    first = _play(policy, environment, half, first_seed)
    return Evaluation(first.returns + second.result().returns, first_seed)


def _play(policy: ExportablePolicy, environment: Environment, episodes: int, first_seed: int) -> Evaluation:
    return play(policy.player, environment, episodes, first_seed)


def observations(player: Player, environment: Environment, count: int, first_seed: int) -> dict[str, np.ndarray]:
    """`count` observations (fewer if 32 episodes end sooner) by the names of the graph's inputs, `[n, *leaf.shape]`."""
    collected = [observation for observation, _ in visited(player, environment, count, first_seed)]
    return stack(player.observation_space, collected, OBSERVATIONS)


def visited(player: Player, environment: Environment, count: int, first_seed: int) -> list[tuple[Any, State]]:
    """`count` observations (fewer if 32 episodes end sooner), as the policy meets them, with its state before each."""
    collected: list[tuple[Any, State]] = []
    for _, batch, states, _ in _steps(player, environment, 32, first_seed):
        collected.extend(zip(batch, states, strict=True))
        if len(collected) >= count:
            break
    return collected[:count]


def _steps(
    player: Player, environment: Environment, episodes: int, first_seed: int
) -> Iterator[tuple[list[int], list[Any], list[State], list[float]]]:
    """Of each step: the episodes still going, their observations, their states before it, their rewards."""
    with contextlib.ExitStack() as opened:
        environments = [opened.enter_context(contextlib.closing(environment.make())) for _ in range(episodes)]
        current: dict[int, Any] = {
            index: each.reset(seed=first_seed + index)[0] for index, each in enumerate(environments)
        }
        states: dict[int, State] = dict.fromkeys(current, player.initial_state())
        while current:
            alive, batch = list(current), list(current.values())
            before = [states[index] for index in alive]
            actions, after = player.act(batch, before)
            states = dict(zip(alive, after, strict=True))
            rewards = []
            for index, action in zip(alive, actions, strict=True):
                observation, reward, terminated, truncated, _ = environments[index].step(action)
                rewards.append(float(reward))
                current[index] = observation
                if terminated or truncated:
                    del current[index]
            yield alive, batch, before, rewards
