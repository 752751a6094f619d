"""RLlib's mean/std filter of observations with frozen statistics, as part of a graph."""

from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from ray.rllib.utils.filter import RunningStat

from pipeline.environments.errors import UnsupportedSpace

MEAN_STD = "mean-std"

_CLIP = 10.0
_EPSILON = 1e-8


def check(space: Space[Any]) -> None:
    """Reject observation spaces that RLlib's filter does not support.

    Raises:
        UnsupportedSpace: If the space is not a Box of floats.
    """
    if not (isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)):
        text = " ".join(str(space).split())
        raise UnsupportedSpace("observation", text, "RLlib's mean/std filter does not support it", "a Box of floats")


class FrozenFilter(torch.nn.Module):
    """Normalizes observations in float64: (x - mean) / (std + 1e-8), clipped to +-10.

    Args:
        state: The state of RLlib's `MeanStdFilter` connector.
    """

    _mean: torch.Tensor
    _scale: torch.Tensor

    def __init__(self, state: dict[Any, Any]) -> None:
        super().__init__()
        (serialized,) = state[None]["running_stats"]
        statistics = RunningStat.from_state(serialized)
        self.register_buffer("_mean", torch.as_tensor(statistics.mean, dtype=torch.float64))
        self.register_buffer("_scale", torch.as_tensor(statistics.std + _EPSILON, dtype=torch.float64))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return the normalized observations, `[batch, *shape]` in their own dtype."""
        normalized = (observations.double() - self._mean) / self._scale
        return normalized.clamp(-_CLIP, _CLIP).to(observations.dtype)
