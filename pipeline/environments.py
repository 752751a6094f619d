"""Environment id -> Gymnasium environment."""

import contextlib
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from gymnasium import spaces

from pipeline import supported
from pipeline.adapters import AdaptedActions, adapted, needs_adapting
from pipeline.errors import EnvironmentNotFound, NoSuchObject
from serving.policy import Bundle

#: Ids of the legacy package `gym` begin with this.
_LEGACY = "gym:"

#: What Gymnasium raises of an environment that is not there, or does not take what it is given.
_MAKING_FAILED = (gymnasium.error.Error, ImportError, TypeError, AttributeError)


@dataclass(frozen=True)
class Environment:
    """What training and evaluation need to know of an environment.

    Attributes:
        id: As Gymnasium knows it.
        observation_space: Of one environment, wrappers included.
        action_space: Of one environment, wrappers included.
        reward_threshold: The return at which it counts as solved, if it declares one.
        has_vector_entry_point: Whether it brings a vectorised implementation of its own.
        render_modes: In which ways it can be shown.
        kwargs: What it is made with.
        wrappers: What it is wrapped in, `module:Class`, the innermost first.
    """

    id: str
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    reward_threshold: float | None
    has_vector_entry_point: bool
    render_modes: tuple[str, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()

    @property
    def trained_action_space(self) -> spaces.Space[Any]:
        """What the policy's own actions are elements of; see `pipeline.adapters`."""
        return adapted(self.action_space)

    @property
    def for_rllib(self) -> tuple[Any, dict[str, Any]]:
        """RLlib's `env` and `env_config`: the id and its arguments where these are enough, else a class and all."""
        gymnasium_id, kwargs = for_gymnasium(self.id, self.kwargs)
        if not self.wrappers and not needs_adapting(self.action_space):
            return gymnasium_id, kwargs
        return TrainingEnvironment, {"id": self.id, "kwargs": dict(self.kwargs), "wrappers": list(self.wrappers)}

    def make(self, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """A new environment, as the policy is served for."""
        return make(self.id, self.kwargs, self.wrappers, render_mode)


class TrainingEnvironment(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment as RLlib trains on it: it takes the policy's own actions.

    Args:
        env_config: `id`, `kwargs` and `wrappers`.
    """

    def __init__(self, env_config: Mapping[str, Any]) -> None:
        super().__init__(AdaptedActions(make(env_config["id"], env_config["kwargs"], env_config["wrappers"])))


def make(
    env_id: str, kwargs: Mapping[str, Any], wrappers: Sequence[str], render_mode: str | None = None
) -> gymnasium.Env[Any, Any]:
    """A new environment in its wrappers."""
    gymnasium_id, arguments = for_gymnasium(env_id, kwargs)
    if render_mode is not None:
        arguments["render_mode"] = render_mode
    made = gymnasium.make(gymnasium_id, disable_env_checker=True, **arguments)
    for name in wrappers:
        made = imported(name)(made)
    return made


def for_gymnasium(env_id: str, kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What `gymnasium.make` takes: for an environment of the legacy package `gym`, shimmy's id and arguments."""
    if not env_id.startswith(_LEGACY):
        return env_id, dict(kwargs)
    # gym's own checker needs a NumPy before 2.
    made = {"disable_env_checker": True, **kwargs}
    return "shimmy:GymV26Environment-v0", {"env_id": env_id.removeprefix(_LEGACY), "make_kwargs": made}


def imported(name: str) -> Callable[..., Any]:
    """The class that `module:Class` names.

    Raises:
        NoSuchObject: If there is none.
    """
    module, colon, attribute = name.partition(":")
    try:
        if not colon:
            raise NoSuchObject(name, "there is no colon in it.")
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise NoSuchObject(name, f"{error}.") from error
    return found


def describe(env_id: str, kwargs: Mapping[str, Any] | None = None, wrappers: Sequence[str] = ()) -> Environment:
    """Make the environment once, and say what it is.

    Raises:
        EnvironmentNotFound: If Gymnasium has none of this id, or a package that it needs is missing.
        NoSuchObject: If there is no such wrapper.
        UnsupportedSpace: If a policy for it could not be trained or served.
    """
    kwargs = kwargs or {}
    try:
        made = make(env_id, kwargs, wrappers)
    except _MAKING_FAILED as error:
        raise EnvironmentNotFound(env_id, str(error)) from error
    with contextlib.closing(made) as environment:
        supported.check(environment.observation_space, environment.action_space)
        spec = made.spec  # gymnasium.spec would not take `module:Id`
        return Environment(
            id=env_id,
            observation_space=environment.observation_space,
            action_space=environment.action_space,
            reward_threshold=spec.reward_threshold if spec else None,
            has_vector_entry_point=spec is not None and spec.vector_entry_point is not None,
            render_modes=tuple(environment.metadata.get("render_modes", ())),
            kwargs=kwargs,
            wrappers=tuple(wrappers),
        )


def of_bundle(bundle: Bundle) -> Environment:
    """The environment that a bundle's policy was trained on.

    Raises:
        EnvironmentNotFound, NoSuchObject: If it, or a wrapper, is not installed here.
    """
    description = json.loads(bundle.policy)
    made = description["environment"]
    return describe(made["id"], made["kwargs"], description.get("wrappers", ()))
