from functools import partial
from typing import Any

import gymnasium
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

from serving.policy.environments import is_allowed, modules_of


@pytest.mark.parametrize(
    ("env_id", "kwargs", "wrappers", "modules"),
    [
        ("CartPole-v1", {}, (), ()),
        ("CartPole", {}, (), ()),
        ("gymnasium:CartPole-v1", {}, (), ()),
        ("CartPole-v1", {}, ("gymnasium.wrappers:FlattenObservation", "gymnasium.wrappers.common:Autoreset"), ()),
        ("CartPole-v1", {}, ("serving.policy.environments:FloatObservations",), ()),
        ("Nowhere-v0", {}, (), ()),
        ("corridor:Corridor-v0", {}, (), ("corridor",)),
        (
            "corridor.envs:Corridor-v0",
            {},
            ("corridor.views:Flat", "os:system"),
            ("corridor.envs", "corridor.views", "os"),
        ),
        ("CartPole-v1", {}, ("gymnasium.envs.registration:make",), ("gymnasium.envs.registration",)),
        ("gymnasiumx:CartPole-v1", {}, (), ("gymnasiumx",)),
        ("gym:CartPole-v0", {}, (), ("gym",)),
        ("gym:corridor:Corridor-v0", {}, (), ("gym", "corridor")),
        ("GymV26Environment-v0", {"env_id": "corridor:Corridor-v0"}, (), ("shimmy", "corridor")),
        ("shimmy:GymV21Environment-v0", {"env_id": "CartPole-v0"}, (), ("shimmy",)),
        ("shimmy:GymV26Environment", {"env_id": "corridor:Corridor-v0"}, (), ("shimmy", "corridor")),
        ("corridor:GymV26Environment-v0", {"env_id": "other:Other-v0"}, (), ("corridor", "other")),
    ],
)
def test_modules_that_an_environment_needs_are_named(
    env_id: str, kwargs: dict[str, Any], wrappers: tuple[str, ...], modules: tuple[str, ...]
) -> None:
    assert modules_of(env_id, kwargs, wrappers) == modules


class Cart(CartPoleEnv):
    """An environment of another module than Gymnasium's."""


@pytest.mark.parametrize("entry_point", [f"{__name__}:Cart", Cart, partial(Cart, render_mode=None)])
@pytest.mark.parametrize("env_id", ["Cart-v3", "Cart"])
def test_an_environment_that_a_package_registered_needs_that_package(entry_point: Any, env_id: str) -> None:
    gymnasium.register("Cart-v3", entry_point)
    try:
        assert modules_of(env_id, {}) == (__name__,)
    finally:
        del gymnasium.registry["Cart-v3"]


@pytest.mark.parametrize(
    ("module", "expected"),
    [("corridor", True), ("corridor.envs", True), ("corridors", False), ("other", False), ("", False)],
)
def test_an_allowed_package_allows_the_modules_in_it(module: str, *, expected: bool) -> None:
    assert is_allowed(module, ["corridor", "third"]) is expected
