"""A player carries the recurrent state of each episode from step to step."""

import numpy as np

from pipeline.evaluation.player import Player
from serving.policy.tensors import STATE_IN, STATE_OUT


def count_steps(feeds):
    """A recurrent "network" whose state counts steps, and whose action is the parity of the count."""
    steps = feeds[f"{STATE_IN}steps"] + 1
    return {"action": steps[:, 0].astype(np.int64) % 2, f"{STATE_OUT}steps": steps}


def test_each_episode_has_its_own_state(cartpole):
    player = Player(cartpole.observation_space, cartpole.action_space, count_steps, {"steps": (1,)})
    fresh, old = player.initial_state(), {"steps": np.array([4], np.float32)}
    observations = [cartpole.observation_space.sample() for _ in range(2)]
    actions, states = player.act(observations, [fresh, old])
    assert actions == [1, 1]
    assert [state["steps"].tolist() for state in states] == [[1], [5]]
    actions, _ = player.act(observations, states)
    assert actions == [0, 0]


def test_the_initial_state_is_zero(cartpole):
    player = Player(cartpole.observation_space, cartpole.action_space, count_steps, {"steps": (2, 3)})
    np.testing.assert_array_equal(player.initial_state()["steps"], np.zeros((2, 3), np.float32))
    assert player.initial_state()["steps"].dtype == np.float32
