"""Environment id -> Gymnasium environment."""

import contextlib
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from pipeline.errors import EnvironmentNotFound, UnsupportedSpace


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
    """

    id: str
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    reward_threshold: float | None
    has_vector_entry_point: bool
    render_modes: tuple[str, ...] = ()

    def make(self, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """A new environment."""
        return gymnasium.make(self.id, disable_env_checker=True, render_mode=render_mode)


def describe(env_id: str) -> Environment:
    """Make the environment once, and say what it is.

    Raises:
        EnvironmentNotFound: If Gymnasium has none of this id, or a package that it needs is missing.
        UnsupportedSpace: If a policy for it could not be trained or served.
    """
    try:
        made = gymnasium.make(env_id, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:
        raise EnvironmentNotFound(env_id, str(error)) from error
    with contextlib.closing(made) as environment:
        _check(environment.observation_space, environment.action_space)
        spec = environment.spec  # gymnasium.spec would not take `module:Id`
        return Environment(
            id=env_id,
            observation_space=environment.observation_space,
            action_space=environment.action_space,
            reward_threshold=spec.reward_threshold if spec else None,
            has_vector_entry_point=spec is not None and spec.vector_entry_point is not None,
            render_modes=tuple(environment.metadata.get("render_modes", ())),
        )


def _check(observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
    if not _is_float_vector(observation_space):
        raise UnsupportedSpace("observation", str(observation_space), "a one-dimensional Box of floats")
    if not (_is_float_vector(action_space) or (isinstance(action_space, spaces.Discrete) and action_space.start == 0)):
        expected = "a Discrete space that starts at 0, or a one-dimensional Box of floats"
        raise UnsupportedSpace("action", str(action_space), expected)


def _is_float_vector(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1 and bool(np.issubdtype(space.dtype, np.floating))
