"""Makes environments and describes them: their spaces, and what else training and evaluation need."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from gymnasium import spaces

from pipeline.config import TrainConfig
from pipeline.environments import supported, vector_form
from pipeline.environments.action_adapters import AdaptedActions, adapted
from pipeline.environments.errors import EnvironmentNotFound, EnvKwargsRefused, NoSuchObject
from serving.policy import environments
from serving.policy.errors import EnvironmentNotMade, EnvironmentUnknown, ObjectUnknown
from serving.policy.policy import Policy
from serving.policy.spaces import leaves


@dataclass(frozen=True)
class Environment:
    """The description of an environment.

    Attributes:
        id: The id that it was described by: Gymnasium's, `module:Id` or `gym:Id`.
        observation_space: The space of one environment's observations, after the wrappers.
        action_space: The space of one environment's actions, after the wrappers.
        reward_threshold: The return at which it counts as solved, or None if it declares none.
        has_vector_entry_point: Whether it has a vectorized implementation of its own, which training can use.
        vector_objection: Why training cannot use the one that it declares; else None.
        has_reserved_arguments: Whether it has an argument of a name that `gymnasium.make_vec` reserves.
        render_modes: Gymnasium's render modes that it supports.
        kwargs: Its keyword arguments.
        wrappers: Its wrapper classes, `module:Class`, the innermost first.
        max_episode_steps: Steps after which the episodes of `make` are cut, unless its time limit is longer.
        time_limit: Steps after which the environment itself cuts its episodes, or None if it declares no limit.
        is_exclusive: Whether it can exist once only, as far as `contract.described` found.
    """

    id: str
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    reward_threshold: float | None
    has_vector_entry_point: bool
    vector_objection: str | None = None
    has_reserved_arguments: bool = False
    render_modes: tuple[str, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[str, ...] = ()
    max_episode_steps: int = environments.MAX_EPISODE_STEPS
    time_limit: int | None = None
    is_exclusive: bool = False

    @property
    def trained_action_space(self) -> spaces.Space[Any]:
        """The space of the policy's own actions, `action_space` itself if PPO supports it."""
        return adapted(self.action_space)

    @property
    def has_continuous_actions(self) -> bool:
        """Whether the policy draws an action, or a part of it, from a normal distribution."""
        return any(isinstance(leaf.space, spaces.Box) for leaf in leaves(self.trained_action_space))

    @property
    def for_rllib(self) -> tuple[Any, dict[str, Any]]:
        """RLlib's settings `env` and `env_config`.

        `env` is the id if `gymnasium.make` alone builds the environment, else `TrainingEnvironment`.
        """
        is_native = self.trained_action_space is self.action_space
        if is_native and not self.wrappers and not self.has_reserved_arguments:
            return environments.for_gymnasium(self.id, self.kwargs)
        return TrainingEnvironment, {"id": self.id, "kwargs": dict(self.kwargs), "wrappers": list(self.wrappers)}

    @property
    def notice(self) -> str | None:
        """A sentence for the progress of a training that steps single environments though there are vectorized ones."""
        if self.vector_objection is None:
            return None
        return f"Environments are stepped one by one, because the vectorized form of {self.id} {self.vector_objection}"

    def make(self, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """Return a new environment, which takes actions of `action_space`."""
        return environments.make(self.id, self.kwargs, self.wrappers, render_mode, self.max_episode_steps)


class TrainingEnvironment(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that takes the policy's own actions, for RLlib to train on.

    Args:
        env_config: `id`, `kwargs` and `wrappers`, as in `Environment`.
    """

    def __init__(self, env_config: Mapping[str, Any]) -> None:
        made = environments.make(env_config["id"], env_config["kwargs"], env_config["wrappers"])
        super().__init__(AdaptedActions(made))


def import_class(name: str) -> Any:
    """Return the class that `module:Class` refers to. Raises NoSuchObject."""
    with _as_pipeline_errors(name, {}):
        return environments.import_object(name)


def describe(
    env_id: str,
    kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[str] = (),
    max_episode_steps: int = environments.MAX_EPISODE_STEPS,
) -> Environment:
    """Make an environment once and return its description.

    Args:
        env_id: Gymnasium's id, `module:Id`, or `gym:Id` for an environment of the legacy package `gym`.
        kwargs: Its keyword arguments.
        wrappers: Wrapper classes, `module:Class`, the innermost first.
        max_episode_steps: Steps after which an episode is cut, unless the environment's time limit is longer.

    Raises:
        EnvironmentNotFound: If Gymnasium has no such environment, or a package that it needs is not installed.
        EnvKwargsRefused: If it cannot be made with these keyword arguments.
        EnvironmentNotMade: If it raises an exception without keyword arguments.
        NoSuchObject: If a wrapper cannot be imported.
        UnsupportedSpace: If a policy for it could not be trained or served.
    """
    kwargs = dict(kwargs or {})
    _check_reserved(env_id, kwargs)
    with _as_pipeline_errors(env_id, kwargs):
        made = environments.make(env_id, kwargs, wrappers)
    with contextlib.closing(made) as environment:
        supported.check(environment.observation_space, environment.action_space)
        spec = environment.spec  # gymnasium.spec does not accept `module:Id`
        declares_vectors = spec is not None and spec.vector_entry_point is not None and not wrappers
        objection = vector_form.objection(env_id, kwargs, environment) if declares_vectors else None
        return Environment(
            id=env_id,
            observation_space=environment.observation_space,
            action_space=environment.action_space,
            reward_threshold=spec.reward_threshold if spec else None,
            has_vector_entry_point=declares_vectors and objection is None,
            vector_objection=objection,
            has_reserved_arguments=not vector_form.RESERVED.isdisjoint([*kwargs, *(spec.kwargs if spec else ())]),
            render_modes=tuple(environment.metadata.get("render_modes", ())),
            kwargs=kwargs,
            wrappers=tuple(wrappers),
            max_episode_steps=max_episode_steps,
            time_limit=environments.time_limit(environment) or None,
        )


def _check_reserved(env_id: str, kwargs: Mapping[str, Any]) -> None:
    reserved = sorted({"id", "render_mode", "disable_env_checker"} & set(kwargs))
    if reserved:
        raise EnvKwargsRefused(env_id, kwargs, f"the pipeline sets {reserved[0]} itself.")


def of_config(config: TrainConfig) -> Environment:
    """Return the environment that a configuration trains in. Raises as `describe`."""
    return describe(config.env_id, config.environment_kwargs, config.wrappers, config.max_episode_steps)


def of_policy(policy: Policy) -> Environment:
    """Return the environment that a registered policy was trained in. Raises as `describe`."""
    trained = policy.environment
    return describe(trained.id, trained.kwargs, trained.wrappers, trained.max_episode_steps)


@contextlib.contextmanager
def _as_pipeline_errors(env_id: str, kwargs: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except ObjectUnknown as error:
        raise NoSuchObject(error.name, f"{error.reason}.") from error
    except EnvironmentUnknown as error:
        raise EnvironmentNotFound(env_id, error.reason) from error
    except EnvironmentNotMade as error:
        if kwargs:
            raise EnvKwargsRefused(env_id, kwargs, error.reason) from error
        if env_id.startswith(environments.LEGACY_PREFIX):  # gym raises its own errors for an unknown id
            raise EnvironmentNotFound(env_id, error.reason) from error
        raise
