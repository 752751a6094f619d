"""Makes the environments that policies are trained in, from the description in their bundles."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium

from serving.policy.environments.checked import checked
from serving.policy.errors import EnvironmentNotMade, EnvironmentUnknown, ObjectUnknown

LEGACY_PREFIX = "gym:"
"""Prefix of the ids of environments of the package `gym`, which shimmy adapts to Gymnasium."""


def make(
    env_id: str, kwargs: Mapping[str, Any], wrappers: Sequence[str] = (), render_mode: str | None = None
) -> gymnasium.Env[Any, Any]:
    """Make an environment and wrap it; the outermost wrapper is `Checked`.

    Args:
        env_id: Gymnasium's id, `module:Id`, or `gym:Id` for an environment of the legacy package `gym`.
        kwargs: its arguments.
        wrappers: wrapper classes, `module:Class`, the innermost first.
        render_mode: Gymnasium's render mode, None for an environment that is not rendered.

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
        return checked(environment, env_id)
    except ObjectUnknown:
        raise
    except (gymnasium.error.Error, ImportError) as error:
        raise EnvironmentUnknown(env_id, str(error)) from error
    except Exception as error:  # an environment may raise any exception
        raise EnvironmentNotMade(env_id, next(iter(str(error).splitlines()), "") or repr(error)) from error


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
