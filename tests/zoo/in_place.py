"""Environments that return their own arrays, and change them in the next step."""

from typing import Any

import numpy as np
from gymnasium import spaces

from tests.zoo.base import E


class InPlace(E):
    """Returns one array as every observation, which it changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self._own = np.zeros(2, np.float32)

    def next_observation(self) -> Any:
        self._own[:] = super().next_observation()
        return self._own


class NestedInPlace(InPlace):
    """Returns one dict as every observation, whose array it changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = spaces.Dict({"numbers": self.observation_space})
        self._dict = {"numbers": self._own}

    def next_observation(self) -> Any:
        super().next_observation()
        return self._dict

    def step(self, _: Any) -> Any:
        self.episode_steps += 1
        return self.next_observation(), 1.0, self.episode_steps == 20, False, {}
