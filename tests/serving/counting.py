"""An environment that only a recurrent policy can solve: `tests.serving.counting:Counting-v0`."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Counting(gymnasium.Env[Any, Any]):
    """Shows one number per step, and rewards 1 if the action tells whether their sum so far is above 0."""

    observation_space = spaces.Box(-10, 10, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self, steps: int = 4) -> None:
        self._steps = steps

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._shown = [self.np_random.normal()]
        return self._observation(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == (np.float32(sum(self._shown)) > 0))
        self._shown.append(self.np_random.normal())
        return self._observation(), reward, len(self._shown) > self._steps, False, {}

    def _observation(self) -> Any:
        return np.array(self._shown[-1:], np.float32)


class Negated(gymnasium.RewardWrapper[Any, Any]):
    """Returns the negative reward."""

    def reward(self, reward: Any) -> float:
        return -float(reward)


gymnasium.register("Counting-v0", entry_point=Counting)
