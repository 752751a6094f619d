"""`describe` makes an environment once and reports everything that training needs, or why it cannot be used."""

import gymnasium
import pytest

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.environments.errors import EnvironmentNotFound, EnvKwargsRefused, NoSuchObject, UnsupportedSpace
from pipeline.rllib.trainer import algorithm_config
from serving.policy.errors import EnvironmentNotMade


def test_describe_returns_spaces_threshold_and_vector_entry_point():
    environment = environments.describe("CartPole-v1")
    assert environment.observation_space.shape == (4,)
    assert environment.action_space == gymnasium.spaces.Discrete(2)
    assert environment.reward_threshold == 475
    assert environment.has_vector_entry_point


def test_the_error_for_an_unknown_id_says_which_ids_are_accepted():
    with pytest.raises(EnvironmentNotFound) as caught:
        environments.describe("CartPol-v1")
    assert str(caught.value) == (
        "No environment 'CartPol-v1': Environment `CartPol` doesn't exist. Did you mean: `CartPole`? "
        "Give the id of a Gymnasium environment, as 'CartPole-v1', or 'module:Id' for one that a module registers."
    )


def test_the_error_names_a_module_that_is_not_installed():
    with pytest.raises(EnvironmentNotFound, match="No module named 'nowhere'"):
        environments.describe("nowhere:Thing-v0")


def test_an_unsupported_space_is_rejected_with_the_reason():
    with pytest.raises(UnsupportedSpace) as caught:
        environments.describe("tests.pipeline.zoo:Text-v0")
    assert str(caught.value).startswith("The observation space Text(1, 5,")
    assert str(caught.value).endswith(
        "is not supported: there is no network for text. "
        "Expected Box, Discrete, MultiDiscrete and MultiBinary, and Dict and Tuple of these."
    )


def test_the_spaces_and_observations_are_those_of_the_wrapped_environment():
    environment = environments.describe("CartPole-v1", wrappers=["tests.pipeline.zoo:WithoutVelocities"])
    assert environment.observation_space.shape == (2,)
    assert environment.make().reset(seed=0)[0].shape == (2,)
    env, env_config = environment.for_rllib
    assert env(env_config).reset(seed=0)[0].shape == (2,)


@pytest.mark.parametrize("for_rllib", [False, True])
def test_wrappers_are_applied_from_the_innermost_to_the_outermost(for_rllib):
    wrappers = ["tests.pipeline.zoo:RewardPlusOne", "tests.pipeline.zoo:RewardDoubled"]
    environment = environments.describe("CartPole-v1", wrappers=wrappers)
    env, env_config = environment.for_rllib
    made = env(env_config) if for_rllib else environment.make()
    made.reset(seed=0)
    assert made.step(0)[1] == (1 + 1) * 2


@pytest.mark.parametrize("kwargs", [{}, {"size": 1}])
def test_the_error_of_a_constructor_is_one_line_with_its_reason(kwargs):
    def fail(**_):
        raise RuntimeError("no display\nmore lines")

    gymnasium.register("Failing-v0", entry_point=fail)
    with pytest.raises(EnvKwargsRefused if kwargs else EnvironmentNotMade) as caught:
        environments.describe("Failing-v0", kwargs)
    assert "no display" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("WithoutVelocities", "expected module:Name."),
        ("nowhere:Wrapper", "No module named 'nowhere'."),
        ("tests.pipeline.zoo:Nothing", "module 'tests.pipeline.zoo' has no attribute 'Nothing'."),
    ],
)
def test_the_error_names_a_wrapper_that_cannot_be_imported(name, reason):
    with pytest.raises(NoSuchObject) as caught:
        environments.describe("CartPole-v1", wrappers=[name])
    assert str(caught.value) == f"'{name}' cannot be imported: {reason} Name a class as module:Class."


@pytest.mark.filterwarnings("ignore")
def test_shimmy_makes_environments_of_the_legacy_package_gym():
    environment = environments.describe("gym:CartPole-v1")
    assert environment.id == "gym:CartPole-v1"
    assert environment.for_rllib[0] == "shimmy:GymV26Environment-v0"
    with pytest.raises(EnvironmentNotFound, match="No environment 'gym:CartPol-v1'"):
        environments.describe("gym:CartPol-v1")


def test_both_make_and_rllib_pass_the_kwargs():
    environment = environments.describe("Pendulum-v1", {"g": 1.5})
    assert environment.make().unwrapped.g == 1.5
    assert algorithm_config(TrainConfig(), environment).env_config == {"g": 1.5}


@pytest.mark.parametrize("kwargs", [{}, {"sutton_barto_reward": True}])
def test_the_vector_entry_point_is_used_if_it_accepts_the_kwargs(kwargs):
    assert environments.describe("CartPole-v1", kwargs).has_vector_entry_point


def test_kwargs_that_the_vector_entry_point_does_not_accept_disable_it():
    gymnasium.register(
        "Sized-v0",
        entry_point=lambda size, **_: gymnasium.make("CartPole-v1").unwrapped if size else None,
        vector_entry_point="gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv",
    )
    assert not environments.describe("Sized-v0", {"size": 8}).has_vector_entry_point


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"size": 8}, "unexpected keyword argument 'size'"),
        ({"render_mode": "human"}, "the pipeline sets render_mode itself"),
    ],
)
def test_kwargs_that_the_environment_does_not_accept_are_rejected_in_one_line(kwargs, reason):
    with pytest.raises(EnvKwargsRefused) as caught:
        environments.describe("CartPole-v1", kwargs)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
