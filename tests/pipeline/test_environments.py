"""Environments are looked at once, before anything is started for them."""

import gymnasium
import pytest

from pipeline import environments
from pipeline.errors import EnvironmentNotFound, UnsupportedSpace


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


def test_a_space_that_cannot_be_served_is_refused_before_training():
    with pytest.raises(UnsupportedSpace) as caught:
        environments.describe("Taxi-v3")
    assert str(caught.value) == (
        "The observation space Discrete(500) is not supported; expected a one-dimensional Box of floats."
    )
