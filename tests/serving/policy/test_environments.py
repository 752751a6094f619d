from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from serving.errors import ServingError
from serving.policy.environments import make
from serving.policy.errors import EnvironmentNotMade, EnvironmentUnknown, ObjectUnknown

COUNTING = "tests.serving.counting:Counting-v0"
FLOATS = "serving.policy.environments:FloatObservations"


class AddOne(gymnasium.RewardWrapper[Any, Any]):
    def reward(self, reward: Any) -> float:
        return float(reward) + 1


class TimesTen(gymnasium.RewardWrapper[Any, Any]):
    def reward(self, reward: Any) -> float:
        return 10 * float(reward)


class Rounded(gymnasium.ObservationWrapper[Any, Any, Any]):
    observation_space = spaces.Box(-10, 10, (1,), np.int8)

    def observation(self, observation: Any) -> Any:
        return (10 * observation).astype(np.int8)


def rewards(wrappers: list[str]) -> set[float]:
    environment = make(COUNTING, {}, wrappers)
    environment.reset(seed=0)
    return {float(environment.step(action)[1]) for action in (0, 1, 0, 1)}


def test_an_environment_receives_its_arguments() -> None:
    environment = make(COUNTING, {"steps": 1})
    environment.reset(seed=0)
    assert environment.step(1)[2], "the episode ends after one step"


def test_wrappers_change_what_the_environment_returns() -> None:
    assert rewards([]) == {0, 1}
    assert rewards(["tests.serving.counting:Negated"]) == {0, -1}


def test_the_first_wrapper_is_the_innermost() -> None:
    assert rewards([f"{__name__}:AddOne", f"{__name__}:TimesTen"]) == {10, 20}
    assert rewards([f"{__name__}:TimesTen", f"{__name__}:AddOne"]) == {1, 11}


def test_integers_are_returned_as_floats_by_a_wrapper() -> None:
    wrappers = [f"{__name__}:Rounded", FLOATS]
    environment, rounded = make(COUNTING, {}, wrappers), make(COUNTING, {}, wrappers[:1])
    observation, _ = environment.reset(seed=0)
    assert observation.dtype == np.float32
    assert environment.observation_space == spaces.Box(-10, 10, (1,), np.float32)
    np.testing.assert_array_equal(observation, rounded.reset(seed=0)[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_a_legacy_environment_has_the_interface_of_gymnasium(render_mode: str | None) -> None:
    environment = make("gym:CartPole-v1", {}, render_mode=render_mode)
    observation, _ = environment.reset(seed=0)
    assert observation.shape == (4,)
    assert len(environment.step(1)) == 5
    assert environment.render_mode == render_mode


@pytest.mark.parametrize(
    ("env_id", "kwargs", "wrappers", "error", "message"),
    [
        ("FrozenLake-v1", {}, [FLOATS], EnvironmentNotMade, "cannot make the environment 'FrozenLake-v1': "),
        ("Nope-v0", {}, [], EnvironmentUnknown, "cannot make the environment 'Nope-v0': "),
        ("nowhere:Nope-v0", {}, [], EnvironmentUnknown, "cannot make the environment 'nowhere:Nope-v0': "),
        (COUNTING, {"color": 1}, [], EnvironmentNotMade, f"cannot make the environment '{COUNTING}': "),
        (COUNTING, {}, ["builtins:int"], EnvironmentNotMade, f"cannot make the environment '{COUNTING}': "),
        (COUNTING, {}, ["builtins:Nope"], ObjectUnknown, "cannot import 'builtins:Nope': module 'builtins' has no"),
        (COUNTING, {}, ["nowhere:Nope"], ObjectUnknown, "cannot import 'nowhere:Nope': No module named 'nowhere'"),
        (COUNTING, {}, ["nowhere"], ObjectUnknown, "cannot import 'nowhere': expected module:Name"),
    ],
)
def test_the_error_names_what_cannot_be_made_or_imported(
    env_id: str, kwargs: dict[str, Any], wrappers: list[str], error: type[ServingError], message: str
) -> None:
    with pytest.raises(error) as caught:
        make(env_id, kwargs, wrappers)
    assert type(caught.value) is error
    assert str(caught.value).startswith(message)
