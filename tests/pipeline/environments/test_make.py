"""Environments are looked at once, before anything is started for them."""

import gymnasium
import pytest

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.environments.errors import EnvironmentNotFound, EnvKwargsRefused, NoSuchObject, UnsupportedSpace
from pipeline.rllib.trainer import algorithm_config


def test_an_environment_is_described_by_its_spaces_and_threshold():
    environment = environments.describe("CartPole-v1")
    assert environment.observation_space.shape == (4,)
    assert environment.action_space == gymnasium.spaces.Discrete(2)
    assert environment.reward_threshold == 475
    assert environment.has_vector_entry_point


def test_an_unknown_environment_is_named_with_what_was_expected():
    with pytest.raises(EnvironmentNotFound) as caught:
        environments.describe("CartPol-v1")
    assert str(caught.value) == (
        "No environment 'CartPol-v1': Environment `CartPol` doesn't exist. Did you mean: `CartPole`? "
        "Give the id of a Gymnasium environment, as 'CartPole-v1', or 'module:Id' for one that a module registers."
    )


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(EnvironmentNotFound, match="No module named 'nowhere'"):
        environments.describe("nowhere:Thing-v0")


def test_what_a_space_lacks_is_said_before_training():
    with pytest.raises(UnsupportedSpace) as caught:
        environments.describe("tests.pipeline.zoo:Text-v0")
    assert str(caught.value).startswith("The observation space Text(1, 5,")
    assert str(caught.value).endswith(
        "is not supported: there is no network for text here. "
        "Expected Box, Discrete, MultiDiscrete and MultiBinary, and Dict and Tuple of these."
    )


def test_wrappers_are_part_of_the_environment():
    environment = environments.describe("CartPole-v1", wrappers=["tests.pipeline.zoo:WithoutVelocities"])
    assert environment.observation_space.shape == (2,)
    assert environment.make().reset(seed=0)[0].shape == (2,)
    env, env_config = environment.for_rllib
    assert env(env_config).reset(seed=0)[0].shape == (2,)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("WithoutVelocities", "there is no colon in it."),
        ("nowhere:Wrapper", "No module named 'nowhere'."),
        ("tests.pipeline.zoo:Nothing", "module 'tests.pipeline.zoo' has no attribute 'Nothing'."),
    ],
)
def test_a_wrapper_that_is_not_there_is_named(name, reason):
    with pytest.raises(NoSuchObject) as caught:
        environments.describe("CartPole-v1", wrappers=[name])
    assert str(caught.value) == f"'{name}' cannot be imported: {reason} Name a class as module:Class."


@pytest.mark.filterwarnings("ignore")
def test_environments_of_the_legacy_package_are_made_by_shimmy():
    environment = environments.describe("gym:CartPole-v1")
    assert environment.id == "gym:CartPole-v1"
    assert environment.for_rllib[0] == "shimmy:GymV26Environment-v0"
    with pytest.raises(EnvironmentNotFound, match="No environment 'gym:CartPol-v1'"):
        environments.describe("gym:CartPol-v1")


def test_it_is_made_with_its_kwargs_here_and_by_the_environment_runners():
    environment = environments.describe("Pendulum-v1", {"g": 1.5})
    assert environment.make().unwrapped.g == 1.5
    assert algorithm_config(TrainConfig(), environment).env_config == {"g": 1.5}


@pytest.mark.parametrize("kwargs", [{}, {"sutton_barto_reward": True}])
def test_the_vectorised_form_is_used_where_it_takes_the_kwargs(kwargs):
    assert environments.describe("CartPole-v1", kwargs).has_vector_entry_point


def test_kwargs_that_only_the_single_form_takes_are_no_obstacle():
    gymnasium.register(
        "Sized-v0",
        entry_point=lambda size, **_: gymnasium.make("CartPole-v1").unwrapped if size else None,
        vector_entry_point="gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv",
    )
    assert not environments.describe("Sized-v0", {"size": 8}).has_vector_entry_point


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [({"size": 8}, "unexpected keyword argument 'size'"), ({"render_mode": "human"}, "is set here")],
)
def test_kwargs_that_it_does_not_take_are_refused_in_one_line(kwargs, reason):
    with pytest.raises(EnvKwargsRefused) as caught:
        environments.describe("CartPole-v1", kwargs)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
