"""Environments whose rewards or observations are not finite."""

from typing import Any

import numpy as np

from tests.zoo.base import E


class NanRewards(E):
    """The reward of the third step of each episode is NaN."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, np.nan if self.episode_steps == 3 else reward, *rest


class NanRewardsAtFirst(E):
    """All rewards are NaN in the first 100 episodes of an environment."""

    episodes = 0

    def reset(self, **arguments: Any) -> Any:
        self.episodes += 1
        return super().reset(**arguments)

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, np.nan if self.episodes <= 100 else reward, *rest


class NanRewardsLater(E):
    """Rewards are NaN from the twentieth episode of an environment on."""

    episodes = 0

    def reset(self, **arguments: Any) -> Any:
        self.episodes += 1
        return super().reset(**arguments)

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, np.nan if self.episodes >= 20 else reward, *rest


class InfiniteRewards(E):
    """The reward of the third step of each episode is minus infinity."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, -np.inf if self.episode_steps == 3 else reward, *rest


class NanObservations(E):
    """The observation of the fifth step of each episode is NaN."""

    def next_observation(self) -> Any:
        return super().next_observation() * np.float32(np.nan if self.episode_steps == 5 else 1)


class InfiniteObservations(E):
    """The observation of the fifth step of each episode is infinite."""

    def next_observation(self) -> Any:
        return super().next_observation() * np.float32(np.inf if self.episode_steps == 5 else 1)


class HugeRewards(E):
    """Rewards are finite, and their sum is not."""

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, 1e308, *rest


class LargeRewards(E):
    """Rewards and their sums are finite, but too large for the float32 of a network."""

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, 1e30, *rest
