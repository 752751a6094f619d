"""Environments whose episodes, or steps, do not end."""

import time
from typing import Any

import gymnasium

from tests.zoo.base import E


class Endless(E):
    """Episodes never end."""

    def step(self, action: Any) -> Any:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, False, info


class Limited(Endless, max_episode_steps=30):
    """Episodes end only by the time limit that the environment is registered with."""


class SleepingStep(E):
    """The third step of each episode sleeps for an hour."""

    def step(self, action: Any) -> Any:
        if self.episode_steps == 2:
            time.sleep(3600)
        return super().step(action)


class SleepingStepLater(E):
    """The third step of the tenth episode of an environment sleeps for an hour."""

    episodes = 0

    def reset(self, **arguments: Any) -> Any:
        self.episodes += 1
        return super().reset(**arguments)

    def step(self, action: Any) -> Any:
        if self.episodes == 10 and self.episode_steps == 2:
            time.sleep(3600)
        return super().step(action)


class Unlimited(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Hides the end of each episode."""

    def step(self, action: Any) -> Any:
        observation, reward, _, _, info = super().step(action)
        return observation, reward, False, False, info


class FortySteps(gymnasium.wrappers.TimeLimit):
    """Truncates episodes after 40 steps."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env, 40)
