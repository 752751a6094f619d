"""The environments that policies are for, made from what their bundles say."""

import importlib
from collections.abc import Sequence
from typing import Any

import gymnasium

from serving.policy.errors import EnvironmentUnknown

LEGACY = "gym:"
"""Ids of the package `gym` begin with this; shimmy makes Gymnasium's environments of them."""


def make(env_id: str, kwargs: dict[str, Any], wrappers: Sequence[str] = ()) -> gymnasium.Env[Any, Any]:
    """Make an environment in its wrappers, `module:Class`, the innermost first.

    Raises:
        EnvironmentUnknown: Gymnasium cannot make it, or a wrapper is not there.
    """
    gymnasium_id, arguments = _for_gymnasium(env_id, kwargs)
    try:
        environment = gymnasium.make(gymnasium_id, **arguments)
        for wrapper in wrappers:
            module, _, name = wrapper.partition(":")
            environment = getattr(importlib.import_module(module), name)(environment)
    except (gymnasium.error.Error, ImportError, AttributeError, TypeError, ValueError) as error:
        raise EnvironmentUnknown(env_id, str(error)) from error
    return environment


def _for_gymnasium(env_id: str, kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if not env_id.startswith(LEGACY):
        return env_id, kwargs
    # gym's own checker needs a NumPy before 2.
    legacy = {"env_id": env_id.removeprefix(LEGACY), "make_kwargs": {"disable_env_checker": True, **kwargs}}
    return "shimmy:GymV26Environment-v0", legacy
