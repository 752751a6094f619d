"""CartPole whose steps take as long as is asked for; `benchmarks.slow:Slow-v0`."""

import time
from typing import Any

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv  # type: ignore[attr-defined]


class Slow(CartPoleEnv):
    """Computes for `step_ms` milliseconds in each step."""

    def __init__(self, step_ms: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._step_s = step_ms / 1000

    def step(self, action: Any) -> Any:
        """Take one step."""
        end = time.perf_counter() + self._step_s
        result = super().step(action)  # type: ignore[no-untyped-call]
        while time.perf_counter() < end:
            pass
        return result


gymnasium.register("Slow-v0", Slow, max_episode_steps=500)
