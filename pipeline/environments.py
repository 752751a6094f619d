"""Environment id -> Gymnasium environment."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from pipeline.errors import EnvironmentNotFound, EnvKwargsRefused, UnsupportedSpace


@dataclass(frozen=True)
class Environment:
    """What training and evaluation need to know of an environment.

    Attributes:
        id: As Gymnasium knows it.
        observation_space: Of one environment.
        action_space: Of one environment.
        reward_threshold: The return at which it counts as solved, if it declares one.
        has_vector_entry_point: Whether it brings a vectorised implementation of its own.
        render_modes: In which ways it can be shown.
        kwargs: What it is made with.
    """

    id: str
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    reward_threshold: float | None
    has_vector_entry_point: bool
    render_modes: tuple[str, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def make(self, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """A new environment."""
        return gymnasium.make(self.id, disable_env_checker=True, render_mode=render_mode, **self.kwargs)


def describe(env_id: str, kwargs: Mapping[str, Any] | None = None) -> Environment:
    """Make the environment once, and say what it is.

    Args:
        env_id: As Gymnasium knows it.
        kwargs: What to make it with.

    Raises:
        EnvironmentNotFound: If Gymnasium has none of this id, or a package that it needs is missing.
        EnvKwargsRefused: If it cannot be made with these.
        UnsupportedSpace: If a policy for it could not be trained or served.
    """
    kwargs = dict(kwargs or {})
    with contextlib.closing(_make(env_id, kwargs)) as environment:
        _check(environment.observation_space, environment.action_space)
        spec = environment.spec  # gymnasium.spec would not take `module:Id`
        return Environment(
            id=env_id,
            observation_space=environment.observation_space,
            action_space=environment.action_space,
            reward_threshold=spec.reward_threshold if spec else None,
            has_vector_entry_point=spec is not None
            and spec.vector_entry_point is not None
            and _has_vectorised(env_id, kwargs),
            render_modes=tuple(environment.metadata.get("render_modes", ())),
            kwargs=kwargs,
        )


def _make(env_id: str, kwargs: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    ours = sorted({"id", "render_mode", "disable_env_checker"} & set(kwargs))
    if ours:
        raise EnvKwargsRefused(env_id, kwargs, f"{ours[0]} is set here.")
    try:
        return gymnasium.make(env_id, disable_env_checker=True, **kwargs)
    except (gymnasium.error.Error, ImportError) as error:
        raise EnvironmentNotFound(env_id, str(error)) from error
    except Exception as error:
        if not kwargs:
            raise
        reason = next(iter(str(error).splitlines()), "") or repr(error)
        raise EnvKwargsRefused(env_id, kwargs, reason) from error


def _has_vectorised(env_id: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether the environment's vectorised form can be made with these too."""
    if not kwargs:
        return True
    try:
        made = gymnasium.make_vec(env_id, num_envs=1, vectorization_mode="vector_entry_point", **kwargs)
    except Exception:  # noqa: BLE001  # whatever its constructor objects with, one by one they can be made
        return False
    made.close()
    return True


def _check(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    if not _is_float_vector(observation_space):
        raise UnsupportedSpace("observation", str(observation_space), "a one-dimensional Box of floats")
    if not (_is_float_vector(action_space) or (isinstance(action_space, spaces.Discrete) and action_space.start == 0)):
        expected = "a Discrete space that starts at 0, or a one-dimensional Box of floats"
        raise UnsupportedSpace("action", str(action_space), expected)


def _is_float_vector(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1 and bool(np.issubdtype(space.dtype, np.floating))
