import numpy as np
import pytest
from gymnasium import spaces

from pipeline.experiment.shadow.actions import AGREES_WITHIN, ActionComparison


def compared(space, one, other):
    found = ActionComparison(space)(one, other)
    return found.agrees.tolist(), found.distance.tolist()


def test_choices_agree_if_they_are_equal():
    one, other = {"action": np.array([0, 1, 1])}, {"action": np.array([0, 1, 0])}
    assert compared(spaces.Discrete(2), one, other) == ([True, True, False], [0, 0, 0])
    assert not ActionComparison(spaces.Discrete(2)).has_numbers


def test_numbers_agree_within_a_share_of_their_range():
    space = spaces.Box(np.float32([-2, 0]), np.float32([2, 10]))
    limits = 4 * AGREES_WITHIN, 10 * AGREES_WITHIN
    one = {"action": np.zeros((3, 2), np.float32)}
    other = {"action": np.array([[limits[0] * 0.9, 0], [0, limits[1] * 0.9], [0, limits[1] * 1.2]], np.float32)}
    agrees, distance = compared(space, one, other)
    assert agrees == [True, True, False]
    assert distance == pytest.approx([0.45 * AGREES_WITHIN, 0.45 * AGREES_WITHIN, 0.6 * AGREES_WITHIN])


def test_the_distance_of_unbounded_numbers_is_in_their_own_unit():
    space = spaces.Box(-np.inf, np.inf, (1,))
    one, other = {"action": np.zeros((1, 1), np.float32)}, {"action": np.full((1, 1), 3, np.float32)}
    assert compared(space, one, other) == ([False], [3])


def test_nested_actions_agree_if_all_of_their_arrays_do():
    space = spaces.Dict(mode=spaces.Discrete(3), force=spaces.Box(-1, 1, (1,)))
    one = {"action.mode": np.array([0, 0, 1]), "action.force": np.zeros((3, 1), np.float32)}
    other = {"action.mode": np.array([0, 0, 2]), "action.force": np.array([[0], [1], [0]], np.float32)}
    assert compared(space, one, other) == ([True, False, False], [0, 0.5, 0])
