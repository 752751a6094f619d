"""A wrapper for environments whose observations are small integers in wide bounds."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class FloatObservations(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Returns the observations of a Box as float32, so that `observation_filter: mean-std` can normalize them.

    Networks scale integers by their bounds. MiniGrid's symbols are 0 to 10 in bounds of 0 to 255, which leaves a
    network almost nothing to distinguish.

    Raises:
        TypeError: If the observation space is not a Box.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box):
            message = f"FloatObservations wraps environments whose observations are a Box, not {type(space).__name__}"
            raise TypeError(message)
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        self.observation_space = spaces.Box(low, high, dtype=np.float32)

    def observation(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """Return the observation as float32."""
        return np.asarray(observation, np.float32)
