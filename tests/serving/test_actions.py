import numpy as np
import pytest
from gymnasium import spaces

from serving.actions import action_writer
from serving.errors import PolicyFailed, SpaceUnsupported


def test_discrete_actions_are_integers() -> None:
    assert action_writer(spaces.Discrete(2))(np.array([1, 0])) == [1, 0]


def test_box_actions_are_lists_that_keep_every_bit() -> None:
    actions = np.array([[0.1], [-2.0]], np.float32)
    written = action_writer(spaces.Box(-2, 2, (1,)))(actions)
    assert written == [[float(np.float32(0.1))], [-2.0]]


def test_an_action_that_is_not_finite_is_never_written() -> None:
    with pytest.raises(PolicyFailed):
        action_writer(spaces.Box(-2, 2, (1,)))(np.array([[np.nan]]))


def test_spaces_without_a_writer_are_refused() -> None:
    with pytest.raises(SpaceUnsupported, match="as actions"):
        action_writer(spaces.MultiBinary(3))
