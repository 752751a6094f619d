import numpy as np
import pytest
from gymnasium import spaces

from serving.play.distributions import MAX_SHOWN, Distribution
from tests.serving.policies import ROBOT_ACTIONS


def test_logits_become_the_probabilities_of_each_choice() -> None:
    (part,) = Distribution(spaces.Discrete(3, start=5)).describe([0.0, np.log(2.0), -1000.0])
    assert part == {"name": "", "start": 5, "probabilities": [0.3333, 0.6667, 0.0]}


def test_a_box_of_floats_has_means_and_standard_deviations() -> None:
    (part,) = Distribution(spaces.Box(-1, 1, (2,))).describe([0.5, -0.25, 0.0, np.log(3.0)])
    assert part == {"name": "", "mean": [0.5, -0.25], "std": [1.0, 3.0]}


def test_each_part_of_a_nested_action_is_named() -> None:
    sizes = [4, 2, 2, 2, 3, 3]  # two Gaussians, two binaries, a MultiDiscrete of 2 and 3, a Discrete
    found = Distribution(ROBOT_ACTIONS).describe([0.0] * sum(sizes))
    assert [part["name"] for part in found] == ["drive", "flags.0[0]", "flags.0[1]", "flags.1[0]", "flags.1[1]", "mode"]
    assert found[-1]["start"] == 5


def test_integers_between_bounds_are_choices() -> None:
    (part,) = Distribution(spaces.Box(-1, 1, (1,), np.int8)).describe([0.0, 0.0, 0.0])
    assert (part["start"], len(part["probabilities"])) == (-1, 3)


@pytest.mark.parametrize("inputs", [None, [0.0], [0.0, None], [[0.0, 0.0]]])
def test_inputs_of_another_form_are_not_described(inputs: object) -> None:
    assert Distribution(spaces.Discrete(2)).describe(inputs) == []


def test_the_number_of_probabilities_is_limited() -> None:
    (part,) = Distribution(spaces.Discrete(100)).describe([0.0] * 100)
    assert len(part["probabilities"]) == MAX_SHOWN
