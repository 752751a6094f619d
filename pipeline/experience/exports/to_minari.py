"""Writes episodes as a dataset of Minari, in its format `hdf5`.

The directory of the export is a root of datasets, for MINARI_DATASETS_PATH. In it lies `<model>/experience-v0/data/`
with `metadata.json` and `main_data.hdf5`.
"""

import contextlib
import copy
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from pipeline.environments.nested_spaces import nest
from pipeline.experience.exports.episodes import Episode
from pipeline.experience.exports.hdf5 import create, require_h5py
from pipeline.experience.exports.spaces import PolicySpaces

DATASET = "experience-v0"
MINARI_VERSION = "0.5.4"
"""The release of Minari whose format this is. Minari refuses datasets of releases that it does not know."""

FOLLOWED = True
"""A dataset has an observation after each action."""


def check(policy: PolicySpaces) -> None:
    """Raise ExportPackageMissing without h5py. Minari takes all spaces that policies of this project have."""
    del policy
    require_h5py("Minari")


def write(episodes: Iterable[Episode], policy: PolicySpaces, directory: Path, about: dict[str, Any]) -> None:
    """Write the episodes below a directory. Raises OSError."""
    dataset_id = _dataset_id(about)
    data = directory / dataset_id / "data"
    data.mkdir(parents=True)
    (directory / dataset_id.partition("/")[0] / "namespace_metadata.json").write_text("{}")
    number, steps = -1, 0
    with create(data / "main_data.hdf5") as file:
        for number, episode in enumerate(episodes):
            _write_episode(file.create_group(f"episode_{number}", track_order=True), number, episode, policy)
            steps += len(episode)
    size = (data / "main_data.hdf5").stat().st_size
    metadata = {
        "total_episodes": number + 1,
        "total_steps": steps,
        "dataset_size": round(size / 1e6, 1),
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(space_json(policy.observation)),
        "action_space": json.dumps(space_json(policy.action)),
        "dataset_id": dataset_id,
        "minari_version": MINARI_VERSION,
        "algorithm_name": about["model"],
        "description": f"Recorded decisions of {about['model']}, version {about['versions']}, digest {about['digest']}",
        **_env_spec(policy),
    }
    (data / "metadata.json").write_text(json.dumps(metadata))


def next_step(directory: Path, about: dict[str, Any]) -> str:
    """Return how to load the export."""
    return f"with MINARI_DATASETS_PATH={directory}: minari.load_dataset({_dataset_id(about)!r})"


def space_json(space: Space[Any]) -> dict[str, Any]:
    """Return a space as `minari.serialization.serialize_space` describes it."""
    match space:
        case spaces.Box():
            bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
            return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
        case spaces.Discrete():
            return {"type": "Discrete", "dtype": "int64", "start": int(space.start), "n": int(space.n)}
        case spaces.MultiDiscrete():
            counts = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
            return {"type": "MultiDiscrete", "dtype": str(space.dtype), **counts}
        case spaces.MultiBinary():
            return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
        case spaces.Dict():
            return {"type": "Dict", "subspaces": {key: space_json(part) for key, part in space.spaces.items()}}
        case spaces.Tuple():
            return {"type": "Tuple", "subspaces": [space_json(part) for part in space.spaces]}
    raise ValueError(space)  # pragma: no cover - policy.json has no other spaces


def _write_episode(group: Any, number: int, episode: Episode, policy: PolicySpaces) -> None:
    group.attrs.update({"id": number, "total_steps": len(episode), "episode": episode.id})
    _write_value(group, "observations", nest(policy.observation, episode.all_observations))
    _write_value(group, "actions", nest(policy.action, episode.actions))
    group["rewards"] = episode.rewards
    ends = np.arange(len(episode)) == len(episode) - 1
    group["terminations"] = ends & episode.terminated
    group["truncations"] = ends & (not episode.terminated)


def _write_value(group: Any, name: str, value: Any) -> None:
    """Write the arrays of a value: a group for a dict, and one with `_index_0`, `_index_1`, ... for a tuple."""
    if isinstance(value, dict | tuple):
        parts = value.items() if isinstance(value, dict) else ((f"_index_{i}", part) for i, part in enumerate(value))
        inner = group.create_group(name)
        for key, part in parts:
            _write_value(inner, key, part)
    else:
        group[name] = value


def _dataset_id(about: dict[str, Any]) -> str:
    """Return `<model>/experience-v0`, the model with only the characters that Minari takes, two or more."""
    namespace = re.sub(r"[^-\w]", "-", about["model"]).ljust(2, "-")
    return f"{namespace}/{DATASET}"


def _env_spec(policy: PolicySpaces) -> dict[str, str]:
    """Return the specification of the environment, if Gymnasium has one and the policy was trained without wrappers."""
    import gymnasium

    with contextlib.suppress(gymnasium.error.Error, TypeError, ValueError, ModuleNotFoundError):
        if not policy.wrappers:
            spec = copy.deepcopy(gymnasium.spec(policy.env_id))
            spec.kwargs = {**spec.kwargs, **policy.env_kwargs}
            return {"env_spec": spec.to_json()}
    return {}
