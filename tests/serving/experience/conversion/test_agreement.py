import numpy as np
import pytest
from gymnasium import spaces

from serving.experience.conversion.agreement import ActionComparison
from serving.policy.bundle import Interface

BOX = spaces.Box(-1, 1, (2,))


def comparison(action_space) -> ActionComparison:
    return ActionComparison(Interface(BOX, action_space, None, {}))


def compare(space, served, computed, inputs=None, noise=None, name="action"):
    found = comparison(space)(
        {name: np.asarray(served)},
        {name: np.asarray(computed)},
        None if inputs is None else np.asarray(inputs, np.float32),
        None if noise is None else np.asarray(noise, np.float32),
    )
    return found.same.tolist(), found.identical.tolist()


def test_choices_that_are_equal_are_the_same():
    assert compare(spaces.Discrete(3), [0, 2], [0, 2]) == ([True, True], [True, True])


def test_a_choice_differs_unless_the_two_best_values_are_almost_equal():
    inputs = [[1.0, 1.00001, 0.0], [1.0, 1.01, 0.0], [1.0, 1.00001, 0.0]]
    assert compare(spaces.Discrete(3), [0, 0, 2], [1, 1, 1], inputs) == ([True, False, False], [False] * 3)


def test_a_near_tie_counts_the_noise():
    inputs, noise = [[1.0, 0.0], [1.0, 1.0]], [[0.0, 1.0], [0.0, 0.5]]
    assert compare(spaces.Discrete(2), [1, 0], [0, 1], inputs, noise) == ([True, False], [False, False])


def test_a_choice_outside_of_the_space_differs():
    assert compare(spaces.Discrete(2, start=5), [7, 4], [5, 5], [[0, 0], [0, 0]])[0] == [False, False]
    assert compare(spaces.Discrete(2, start=5), [6], [5], [[0, 0]])[0] == [True]


def test_without_the_inputs_of_the_distribution_a_choice_that_differs_differs():
    assert compare(spaces.Discrete(2), [1], [0])[0] == [False]
    assert compare(spaces.Discrete(2), [1], [0], [[0, 0, 0]])[0] == [False]  # inputs of another kind


def test_each_choice_of_several_must_be_a_near_tie():
    space = spaces.MultiDiscrete([2, 3], start=[1, 0])
    inputs = [[0, 0, 1, 0, 1], [0, 0, 1, 0, 1]]
    assert compare(space, [[2, 2], [2, 1]], [[1, 0], [1, 0]], inputs)[0] == [True, False]


@pytest.mark.parametrize(
    ("space", "served", "computed", "inputs"),
    [
        (spaces.MultiBinary(2), [[1, 0]], [[0, 0]], [[0, 0, 1, 0]]),
        (spaces.Box(-2, 0, (1,), np.int8), [[-1]], [[-2]], [[1, 1, 0]]),
    ],
    ids=["bits", "integers"],
)
def test_near_ties_of_other_spaces_of_choices(space, served, computed, inputs):
    assert compare(space, np.asarray(served, space.dtype), np.asarray(computed, space.dtype), inputs)[0] == [True]


def test_numbers_are_equal_within_the_tolerance():
    space = spaces.Box(-np.inf, np.inf, (2,))
    served = np.array([[1, 100], [1, 100], [0, 0]], np.float32)
    computed = np.array([[1.00005, 100.005], [1.0002, 100], [5e-6, 0]], np.float32)
    assert compare(space, served, computed) == ([True, False, True], [True, False, True])


def test_the_absolute_tolerance_is_of_the_range_of_the_action():
    assert compare(spaces.Box(-1000, 1000, (1,)), [[0.0]], [[0.01]])[0] == [True]
    assert compare(spaces.Box(-1, 1, (1,)), [[0.0]], [[0.01]])[0] == [False]


def test_numbers_that_are_none_are_equal_to_each_other():
    space = spaces.Box(-np.inf, np.inf, (1,))
    assert compare(space, [[np.nan], [np.nan]], [[np.nan], [0.0]])[0] == [True, False]


def test_a_nested_action_is_the_same_if_all_its_leaves_are():
    space = spaces.Dict(drive=spaces.Box(-1, 1, (1,)), mode=spaces.Discrete(2))
    served = {"action.drive": np.float32([[0.5], [0.5], [0.1]]), "action.mode": np.array([1, 0, 1])}
    computed = {"action.drive": np.float32([[0.5], [0.5], [0.5]]), "action.mode": np.array([1, 1, 1])}
    inputs = np.float32([[0, 5, 0, 1], [0, 5, 0.5, 0.5], [0, 5, 0, 1]])  # mean and deviation, then the logits
    found = comparison(space)(served, computed, inputs, None)
    assert found.same.tolist() == [True, True, False]
    assert found.identical.tolist() == [True, False, False]
