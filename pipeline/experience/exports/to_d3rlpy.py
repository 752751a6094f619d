"""Writes episodes as d3rlpy's `ReplayBuffer.load` reads them: one HDF5 file, version 2.1 of the format."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from pipeline.experience.exports.episodes import Episode
from pipeline.experience.exports.errors import SpaceNotExportable
from pipeline.experience.exports.hdf5 import create, require_h5py
from pipeline.experience.exports.spaces import PolicySpaces

FILE = "episodes.h5"
FORMAT = "2.1"
COLUMNS = ("observations", "actions", "rewards", "terminated")

FOLLOWED = False
"""d3rlpy uses no observation after the last action, and of a truncated episode not the last action either."""

_OBSERVATIONS = "a Box, MultiBinary or MultiDiscrete with at least one dimension"
_ACTIONS = "a Discrete that starts at 0, or a Box with one dimension"


def check(policy: PolicySpaces) -> None:
    """Raise SpaceNotExportable for spaces that d3rlpy has no form for, ExportPackageMissing without h5py."""
    if not isinstance(policy.observation, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete) or (
        not policy.observation.shape
    ):
        raise SpaceNotExportable("d3rlpy", "observation", str(policy.observation), _OBSERVATIONS)
    action = policy.action
    is_discrete = isinstance(action, spaces.Discrete) and action.start == 0
    if not is_discrete and not (isinstance(action, spaces.Box) and len(action.shape) == 1):
        raise SpaceNotExportable("d3rlpy", "action", str(action), _ACTIONS)
    require_h5py("d3rlpy")


def write(episodes: Iterable[Episode], policy: PolicySpaces, directory: Path, about: dict[str, Any]) -> None:
    """Write the episodes below a directory. Raises OSError."""
    del about
    with create(directory / FILE) as file:
        number = -1
        for number, episode in enumerate(episodes):
            file[f"observations_{number}"] = _observations(episode)
            file[f"actions_{number}"] = _actions(policy.action, episode)
            file[f"rewards_{number}"] = episode.rewards.astype(np.float32)[:, np.newaxis]
            file[f"terminated_{number}"] = episode.terminated
        file["columns"] = list(COLUMNS)
        file["num_episodes"] = number + 1
        file["version"] = FORMAT


def next_step(directory: Path, about: dict[str, Any]) -> str:
    """Return how to load the export."""
    del about
    buffer = "d3rlpy.dataset.InfiniteBuffer()"
    return f"d3rlpy.dataset.ReplayBuffer.load(open({str(directory / FILE)!r}, 'rb'), {buffer})"


def _observations(episode: Episode) -> NDArray[Any]:
    """Return `[steps, *shape]`: images as they are, other observations in d3rlpy's float32."""
    (observations,) = episode.observations
    is_image = observations.ndim == 4 and observations.dtype == np.uint8  # noqa: PLR2004 - steps, channels, height, width
    return observations if is_image else observations.astype(np.float32)


def _actions(space: Space[Any], episode: Episode) -> NDArray[Any]:
    """Return `[steps, 1]` int32 for a Discrete, `[steps, n]` float32 for a Box."""
    (actions,) = episode.actions
    if isinstance(space, spaces.Discrete):
        return actions.astype(np.int32)[:, np.newaxis]
    return actions.astype(np.float32)
