"""Finds the modules that making an environment imports, so that only those that somebody allows are imported."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium

from serving.policy.environments.factory import LEGACY_PREFIX, for_gymnasium

OWN_WRAPPERS = ("gymnasium.wrappers", "serving.policy.environments")
"""The modules whose wrappers anybody may name: their classes do nothing but convert."""

_ADAPTER = re.compile(r"GymV2\d+Environment")
"""Names of shimmy's adapters, whose argument `env_id` names an environment of the package gym."""


def modules_of(env_id: str, kwargs: Mapping[str, Any], wrappers: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the modules that `make` would import for these arguments, besides Gymnasium's and this project's.

    Nothing is imported for it. An environment that an installed package has registered with Gymnasium runs the code of
    that package, so its module is among them. `gym:Id` needs the package gym.
    """
    named = [wrapper.partition(":")[0] for wrapper in wrappers]
    wrapping = [module for module in named if not is_allowed(module, OWN_WRAPPERS)]
    return tuple(dict.fromkeys([*_modules_of_environment(env_id, kwargs), *wrapping]))


def is_allowed(module: str, allowed: Sequence[str]) -> bool:
    """Return whether a module is one of the allowed modules and packages, or in one."""
    return any(module == each or module.startswith(f"{each}.") for each in allowed)


def _modules_of_environment(env_id: str, kwargs: Mapping[str, Any]) -> Iterator[str]:
    gymnasium_id, arguments = for_gymnasium(env_id, kwargs)
    module, _, name = gymnasium_id.rpartition(":")
    if env_id.startswith(LEGACY_PREFIX):
        module = "gym"
    modules = [module, *map(_module_of, _registered(name))]
    if _ADAPTER.match(name):
        # It imports the module in the id that it is given.
        modules = [module or "shimmy", str(arguments.get("env_id", "")).rpartition(":")[0]]
    yield from (module for module in modules if module and not is_allowed(module, ("gymnasium",)))


def _registered(name: str) -> Iterator[gymnasium.envs.registration.EnvSpec]:
    """Yield what Gymnasium may make for an id: the environment, or for an id without a version, one of its versions."""
    for spec in gymnasium.registry.values():
        if name in (spec.id, re.sub(r"-v\d+$", "", spec.id)):
            yield spec


def _module_of(spec: gymnasium.envs.registration.EnvSpec) -> str:
    entry_point: Any = spec.entry_point
    if isinstance(entry_point, str):
        return entry_point.partition(":")[0]
    while isinstance(entry_point, functools.partial):
        entry_point = entry_point.func
    return str(getattr(entry_point, "__module__", ""))
