"""Makes the environments that policies are trained in, from the description in their bundles, and draws them."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from serving.policy.environments.checked import checked
from serving.policy.errors import EnvironmentNotDrawn, EnvironmentNotMade, EnvironmentUnknown, ObjectUnknown

LEGACY_PREFIX = "gym:"
"""Prefix of the ids of environments of the package `gym`, which shimmy adapts to Gymnasium."""

MAX_EPISODE_STEPS = 5000
"""The default number of steps after which an episode is cut, unless the environment has a longer time limit."""


class StepLimit(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Truncates the episodes of an environment that would not end them.

    Attributes:
        max_steps: the number of steps after which an episode is truncated.
        was_reached: whether the last step was truncated for this reason.
    """

    def __init__(self, environment: gymnasium.Env[Any, Any], max_steps: int) -> None:
        super().__init__(environment)
        self.max_steps = max_steps
        self.was_reached = False
        self._steps = 0

    def reset(self, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and the number of steps."""
        self._steps, self.was_reached = 0, False
        return self.env.reset(**arguments)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take one step, the last of the episode if it is the `max_steps`th."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        self.was_reached = self._steps >= self.max_steps and not (terminated or truncated)
        return observation, reward, terminated, truncated or self.was_reached, info


def make(
    env_id: str,
    kwargs: Mapping[str, Any],
    wrappers: Sequence[str] = (),
    render_mode: str | None = None,
    max_episode_steps: int | None = None,
) -> gymnasium.Env[Any, Any]:
    """Make an environment, and wrap it in the wrappers of the user, `Checked` and `StepLimit`.

    Args:
        env_id: Gymnasium's id, `module:Id`, or `gym:Id` for an environment of the legacy package `gym`.
        kwargs: its arguments.
        wrappers: wrapper classes, `module:Class`, the innermost first.
        render_mode: Gymnasium's render mode, None for an environment that is not rendered.
        max_episode_steps: the number of steps after which StepLimit truncates an episode, unless the time limit of the
            environment is longer; None for no bound.

    Raises:
        EnvironmentUnknown: Gymnasium has no such environment, or a package that it needs is not installed.
        ObjectUnknown: a wrapper cannot be imported.
        EnvironmentNotMade: the environment or a wrapper raised an exception, its `__cause__`.
    """
    rendered = {} if render_mode is None else {"render_mode": render_mode}
    gymnasium_id, arguments = for_gymnasium(env_id, {**kwargs, **rendered})
    try:
        environment = gymnasium.make(gymnasium_id, **{"disable_env_checker": True, **arguments})
        for wrapper in wrappers:
            environment = import_object(wrapper)(environment)
        environment = checked(environment, env_id)
        if max_episode_steps is not None:
            environment = StepLimit(environment, max(max_episode_steps, time_limit(environment)))
    except ObjectUnknown:
        raise
    except (gymnasium.error.Error, ImportError) as error:
        raise EnvironmentUnknown(env_id, str(error)) from error
    except Exception as error:  # an environment may raise any exception
        raise EnvironmentNotMade(env_id, next(iter(str(error).splitlines()), "") or repr(error)) from error
    return environment


def draw(environment: gymnasium.Env[Any, Any]) -> NDArray[np.uint8]:
    """Return what an environment with the render mode rgb_array draws, as an image `[height, width, 3]`.

    Images in gray, with an alpha channel or with the channels first, lists of images (the last one is taken), floats
    from 0 to 1 and other numbers from 0 to 255 are converted.

    Raises:
        EnvironmentNotDrawn: `render` raised an exception, or returned something else.
    """
    try:
        drawn: Any = environment.render()
    except Exception as error:  # an environment may raise any exception
        raise EnvironmentNotDrawn(f"raised {_one_line(error)}") from error
    if isinstance(drawn, list) and drawn and isinstance(drawn[-1], np.ndarray):
        drawn = drawn[-1]
    try:
        image = np.asarray(drawn)
    except ValueError:  # rows of different lengths
        image = np.array(None)
    frame = _as_rgb(image)
    if frame is None:
        is_array = isinstance(drawn, np.ndarray)
        found = f"an array of shape {image.shape} and dtype {image.dtype}" if is_array else type(drawn).__name__
        raise EnvironmentNotDrawn(f"returned {found}, expected an array [height, width, 3] of uint8")
    return frame


def _as_rgb(image: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return an image as `[height, width, 3]` uint8, or None if an array is no image."""
    if image.ndim == 2:  # noqa: PLR2004 - gray
        image = image[..., None]
    if image.ndim == 3 and image.shape[2] not in (1, 3, 4) and image.shape[0] in (1, 3, 4):  # noqa: PLR2004
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or not image.size or image.dtype.kind not in "bufi":  # noqa: PLR2004
        return None
    image = np.broadcast_to(image[..., :3], (*image.shape[:2], 3))
    if image.dtype != np.uint8:
        image = np.nan_to_num(image.astype(np.float64))
        image = (image * (255 if image.max() <= 1 else 1)).round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(image)


def _one_line(error: Exception) -> str:
    text = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def time_limit(environment: gymnasium.Env[Any, Any]) -> int:
    """Return the longest time limit of an environment, which Gymnasium or the package gym enforces; 0 without any."""
    layer: Any = environment
    limits = [0]
    while isinstance(layer, gymnasium.Wrapper):
        if isinstance(layer, TimeLimit):
            limits.append((layer.spec and layer.spec.max_episode_steps) or 0)
        layer = layer.env
    legacy = getattr(getattr(layer, "gym_env", None), "spec", None)  # shimmy's adapter for the package gym
    return max(*limits, getattr(legacy, "max_episode_steps", None) or 0)


def cut_notice(cut: int, episodes: int, max_steps: int) -> str:
    """Return a sentence about `cut` of `episodes` episodes that StepLimit ended after `max_steps` steps."""
    return (
        f"{cut} of {episodes} episodes did not end and were cut after {max_steps:,} steps, because the environment has "
        "no time limit. Set one (gymnasium.wrappers.TimeLimit) when training: "
        """--env-kwargs '{"max_episode_steps": 200}'; or train with another bound: --max-episode-steps"""
    )


def was_cut(environment: gymnasium.Env[Any, Any]) -> bool:
    """Return whether StepLimit ended the episode."""
    return isinstance(environment, StepLimit) and environment.was_reached


def for_gymnasium(env_id: str, kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the id and the arguments that `gymnasium.make` takes: for `gym:Id`, those of shimmy's adapter."""
    if not env_id.startswith(LEGACY_PREFIX):
        return env_id, dict(kwargs)
    # The environment checker of gym needs a NumPy before 2.
    legacy = {"env_id": env_id.removeprefix(LEGACY_PREFIX), "make_kwargs": {"disable_env_checker": True, **kwargs}}
    return "shimmy:GymV26Environment-v0", legacy


def import_object(name: str) -> Any:
    """Return the object that `module:Name` refers to. Raises ObjectUnknown."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ObjectUnknown(name, "expected module:Name")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ObjectUnknown(name, str(error)) from error
