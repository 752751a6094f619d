"""RLlib's running mean/std filter of observations, frozen, as part of a graph."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from ray.rllib.utils.filter import RunningStat

from pipeline.environments.errors import UnsupportedSpace

MEAN_STD = "mean-std"

#: Where RLlib's checkpoints keep its figures.
_STATES = [
    f"{pipeline}/MeanStdFilter/state.pkl"
    for pipeline in ("env_runner/env_to_module_connector", "env_to_module_connector")
]

_CLIP = 10.0
_EPSILON = 1e-8


def check(space: Space[Any]) -> None:
    """Refuse what RLlib's filter does not filter.

    Raises:
        UnsupportedSpace: On anything but a Box of floats.
    """
    if not (isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating)):
        text = " ".join(str(space).split())
        raise UnsupportedSpace("observation", text, "RLlib's mean/std filter fails on it", "a Box of floats")


class FrozenFilter(torch.nn.Module):
    """`[batch, *shape]` -> the same, normalized in float64: (x - mean) / (std + 1e-8), within +-10."""

    _mean: torch.Tensor
    _scale: torch.Tensor

    def __init__(self, state: dict[Any, Any]) -> None:
        super().__init__()
        (serialized,) = state[None]["running_stats"]
        statistics = RunningStat.from_state(serialized)
        self.register_buffer("_mean", torch.as_tensor(statistics.mean, dtype=torch.float64))
        self.register_buffer("_scale", torch.as_tensor(statistics.std + _EPSILON, dtype=torch.float64))

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "FrozenFilter | None":
        """The filter that a policy was trained behind; None if there was none."""
        for file in _STATES:
            if (checkpoint / file).is_file():
                return cls(pickle.loads((checkpoint / file).read_bytes()))  # noqa: S301  # checkpoints are pickles
        return None

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Compute what RLlib's `MeanStdFilter` does without an update."""
        normalized = (observations.double() - self._mean) / self._scale
        return normalized.clamp(-_CLIP, _CLIP).to(observations.dtype)
