"""Policies that are functions of observations, without a network."""

import numpy as np
import pytest

from pipeline.evaluation.player import Player


@pytest.fixture(scope="package")
def player_of():
    """Environment, and a function of a batch of observations -> a player."""

    def build(environment, act):
        spaces = environment.observation_space, environment.action_space
        return Player(*spaces, lambda feeds: {"action": act(feeds["observations"])})

    return build


@pytest.fixture(scope="package")
def balance(cartpole, player_of):
    """A linear policy that keeps the pole upright until the time limit."""
    return player_of(cartpole, lambda batch: (batch @ np.array([0.1, 0.2, 3.0, 1.0]) > 0).astype(np.int64))


@pytest.fixture(scope="package")
def push_left(cartpole, player_of):
    return player_of(cartpole, lambda batch: np.zeros(len(batch), np.int64))
