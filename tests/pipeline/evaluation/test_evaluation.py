"""An evaluation is the same for the same policy and seeds, and plays every episode to its end."""

import numpy as np
import pytest

from pipeline.environments import make as environments
from pipeline.evaluation import evaluation
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.player import Player


@pytest.fixture(scope="module")
def cartpole():
    return environments.describe("CartPole-v1")


def player_of(environment, act):
    """A policy that is a function of a batch of observations."""
    spaces = environment.observation_space, environment.action_space
    return Player(*spaces, lambda feeds: {"action": act(feeds["observations"])})


@pytest.fixture(scope="module")
def balance(cartpole):
    """A linear policy that holds the pole up for good."""
    return player_of(cartpole, lambda batch: (batch @ np.array([0.1, 0.2, 3.0, 1.0]) > 0).astype(np.int64))


@pytest.fixture(scope="module")
def push_left(cartpole):
    return player_of(cartpole, lambda batch: np.zeros(len(batch), np.int64))


def test_episodes_are_repeatable_and_differ_by_seed(cartpole, push_left):
    first, again, others = (evaluation.play(push_left, cartpole, 20, seed) for seed in (7, 7, 100))
    assert first == again
    assert first.returns != others.returns


def test_episode_i_does_not_depend_on_how_many_are_played(cartpole, push_left):
    assert evaluation.play(push_left, cartpole, 20, 7).returns[:5] == evaluation.play(push_left, cartpole, 5, 7).returns


def test_a_good_policy_reaches_the_time_limit(cartpole, balance):
    assert evaluation.play(balance, cartpole, 10, 0).returns == (500.0,) * 10


def test_continuous_actions_reach_the_environment_as_they_are():
    pendulum = environments.describe("Pendulum-v1")
    still = player_of(pendulum, lambda batch: np.zeros((len(batch), 1), np.float32))
    result = evaluation.play(still, pendulum, 3, 0)
    assert all(-2000 < value < 0 for value in result.returns)


def test_statistics_are_those_of_the_returns():
    result = Evaluation((1.0, 2.0, 6.0), first_seed=0)
    assert (result.mean, result.minimum) == (3.0, 1.0)
    assert result.std == pytest.approx(np.std([1, 2, 6]))
    assert str(result) == "3.0 +- 2.2 (minimum 1.0) over 3 episodes"


def test_observations_come_from_rollouts(cartpole, balance):
    observations = evaluation.observations(balance, cartpole, 1000, 0)["observations"]
    assert len(observations) == 1000
    assert observations.dtype == np.float32
    assert len(np.unique(observations, axis=0)) > 900
