"""Checks recorded episodes against the spaces of the environment that a policy is trained for."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from gymnasium import Space, spaces
from numpy.typing import NDArray

from pipeline.environments.action_adapters import is_integer
from pipeline.environments.make import Environment
from pipeline.experience.exports.episodes import ACTIONS, OBS, Arrays, Episode
from pipeline.experience.whole_episodes import WholeEpisodes
from pipeline.learning.errors import OtherSpaces, ValueInvalid
from serving.experience.tables import DIGEST_KEY, SHAPE_KEY
from serving.policy.spaces import integer_range, leaves


def check_arrays(whole: WholeEpisodes, environment: Environment) -> None:
    """Check that the recorded arrays are those of the environment's spaces. Raises OtherSpaces.

    Observations that were not recorded, or as digests, are left to `Selection`, which refuses them.
    """
    for role, root, space in (
        ("observation", OBS, environment.observation_space),
        ("action", ACTIONS, environment.action_space),
    ):
        found = {field.name: _described(field) for field in whole.schema if field.name.split(".")[0] == root}
        if any(DIGEST_KEY in (field.metadata or {}) for field in whole.schema if field.name in found):
            continue
        expected = {leaf.tensor(root): _text(leaf.space.shape or (), leaf.space.dtype) for leaf in leaves(space)}
        if found and found != expected:
            raise OtherSpaces(whole.model, role, _listed(found), environment.id, _listed(expected))


def check_values(episode: Episode, environment: Environment, *, with_rewards: bool) -> None:
    """Check that all numbers are finite, and that choices and actions are elements of their spaces.

    Raises:
        ValueInvalid: For the first one that is not.
    """
    _check_leaves(episode, "observation", environment.observation_space, episode.all_observations, is_bounded=False)
    _check_leaves(episode, "action", environment.action_space, episode.actions, is_bounded=True)
    if with_rewards:
        _require(episode, "reward", np.isfinite(episode.rewards), episode.rewards, "a finite number")


def share_at_bounds(episodes: Sequence[Episode], space: Space[Any]) -> float:
    """Return the share of steps with an element of a Box of floats at a bound of it."""
    at_bound = [
        np.any([_touches(leaf.space, array) for leaf, array in zip(leaves(space), each.actions, strict=True)], axis=0)
        for each in episodes
    ]
    return float(np.concatenate(at_bound).mean())


def _touches(space: Any, actions: NDArray[Any]) -> NDArray[np.bool_]:
    if not isinstance(space, spaces.Box) or is_integer(space):
        return np.zeros(len(actions), np.bool_)
    touches = (actions <= space.low) | (actions >= space.high)
    return _rows(np.any, touches)


def _check_leaves(episode: Episode, role: str, space: Space[Any], arrays: Arrays, *, is_bounded: bool) -> None:
    for leaf, array in zip(leaves(space), arrays, strict=True):
        name = f"{role} {leaf.path}" if leaf.path else role
        if np.issubdtype(array.dtype, np.floating):
            _require(episode, name, _rows(np.all, np.isfinite(array)), array, "finite numbers")
        found = integer_range(leaf.space)
        if found is None and is_bounded and isinstance(leaf.space, spaces.Box):
            found = leaf.space.low, leaf.space.high
        if found is not None:
            low, high = found
            _require(
                episode, name, _rows(np.all, (array >= low) & (array <= high)), array, f"an element of {leaf.space}"
            )


def _rows(combine: Any, elements: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether all or any of the elements of each step are true."""
    result: NDArray[np.bool_] = combine(elements.reshape(len(elements), -1), axis=1)
    return result


def _require(episode: Episode, role: str, valid: NDArray[np.bool_], values: NDArray[Any], expected: str) -> None:
    if not valid.all():
        step = int(np.argmin(valid))
        found = " ".join(str(values[step]).split())
        raise ValueInvalid(role, found, episode.id, step, " ".join(expected.split()))


def _described(field: pa.Field) -> str:
    kind = field.type.value_type if hasattr(field.type, "value_type") else field.type
    shape = json.loads((field.metadata or {}).get(SHAPE_KEY, b"[]"))
    return _text(tuple(shape), kind.to_pandas_dtype())


def _text(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{shape} {np.dtype(dtype)}" if shape else f"one {np.dtype(dtype)}"


def _listed(arrays: dict[str, str]) -> str:
    return ", ".join(f"{name} of {text}" for name, text in arrays.items())
