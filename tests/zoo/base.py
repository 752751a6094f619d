"""The environment that behaves well, of which the others change one thing each."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

EPISODE_STEPS = 20


class E(gymnasium.Env[Any, Any]):
    """Rewards action 1 where the first of two random numbers is positive, else action 0; episodes have 20 steps.

    Subclasses are registered as `CLASS-v0`. Keyword arguments of the class statement are those of
    `gymnasium.register`: `class Endless(E, max_episode_steps=None)`.
    """

    def __init_subclass__(cls, **registration: Any) -> None:
        super().__init_subclass__()
        gymnasium.register(f"{cls.__name__}-v0", cls, **registration)

    def __init__(self) -> None:
        self.observation_space: spaces.Space[Any] = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space: spaces.Space[Any] = spaces.Discrete(2)
        self.episode_steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        super().reset(seed=seed, options=options)
        self.episode_steps = 0
        self.observation = self.next_observation()
        return self.observation, {}

    def step(self, action: Any) -> tuple[Any, ...]:
        rewarded = float(action == int(self.observation[0] > 0))
        self.episode_steps += 1
        self.observation = self.next_observation()
        return self.observation, rewarded, self.episode_steps == EPISODE_STEPS, False, {}

    def next_observation(self) -> Any:
        """Return two random numbers."""
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


class Behaved(E):
    """Misbehaves in nothing."""
