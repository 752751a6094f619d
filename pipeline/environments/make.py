"""Environment id -> Gymnasium environment."""

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from gymnasium import spaces

from pipeline.environments import supported
from pipeline.environments.action_adapters import AdaptedActions, adapted, needs_adapting
from pipeline.environments.errors import EnvironmentNotFound, EnvKwargsRefused, NoSuchObject
from pipeline.errors import PipelineError
from serving.policy.policy import Policy

#: Ids of the legacy package `gym` begin with this.
_LEGACY = "gym:"


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
        """What the policy's own actions are elements of; see `pipeline.environments.action_adapters`."""
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

    Args:
        env_id: As Gymnasium knows it, or `gym:Id`.
        kwargs: What to make it with.
        wrappers: What to wrap it in, `module:Class`, the innermost first.

    Raises:
        EnvironmentNotFound: If Gymnasium has none of this id, or a package that it needs is missing.
        EnvKwargsRefused: If it cannot be made with these.
        NoSuchObject: If there is no such wrapper.
        UnsupportedSpace: If a policy for it could not be trained or served.
    """
    kwargs = dict(kwargs or {})
    with contextlib.closing(_make(env_id, kwargs, wrappers)) as environment:
        supported.check(environment.observation_space, environment.action_space)
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
            wrappers=tuple(wrappers),
        )


def served_for(policy: Policy) -> Environment:
    """The environment that a registered policy was trained on; raises as `describe`."""
    trained = policy.environment
    return describe(trained.id, trained.kwargs, trained.wrappers)


def _make(env_id: str, kwargs: Mapping[str, Any], wrappers: Sequence[str]) -> gymnasium.Env[Any, Any]:
    ours = sorted({"id", "render_mode", "disable_env_checker"} & set(kwargs))
    if ours:
        raise EnvKwargsRefused(env_id, kwargs, f"{ours[0]} is set here.")
    try:
        return make(env_id, kwargs, wrappers)
    except (gymnasium.error.Error, ImportError) as error:
        raise EnvironmentNotFound(env_id, str(error)) from error
    except PipelineError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or repr(error)
        if env_id.startswith(_LEGACY) and not kwargs:  # gym's errors are its own
            raise EnvironmentNotFound(env_id, reason) from error
        if not kwargs:
            raise
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
