"""The policy's actions are converted to the environment's; spaces that PPO supports stay as they are."""

import numpy as np
import pytest
from gymnasium import spaces
from ray.rllib.utils.spaces.space_utils import unsquash_action

from pipeline.environments.action_adapters import adapted, from_policy, to_policy
from pipeline.environments.nested_spaces import stack
from serving.policy.spaces import leaves
from tests.pipeline.zoo import SPACES

NATIVE = [
    spaces.Discrete(3),
    spaces.MultiDiscrete([2, 3]),
    spaces.Box(-2, 2, (3,), np.float32),
    spaces.Box(-np.inf, np.inf, (3,), np.float32),
]

ACTIONS = {
    name: action for name, (_, action) in SPACES.items() if name not in ("WideIntegers", "Text", "Sequence", "Graph")
}


@pytest.mark.parametrize("space", NATIVE, ids=str)
def test_actions_of_spaces_that_ppo_supports_are_not_converted(space):
    assert adapted(space) is space
    action = space.sample()
    assert from_policy(space, action) is action


@pytest.mark.parametrize("space", ACTIONS.values(), ids=ACTIONS)
def test_every_action_of_the_policy_converts_to_a_valid_action(space):
    trained = adapted(space)
    assert all(space.contains(from_policy(space, trained.sample())) for _ in range(50))


@pytest.mark.parametrize(
    ("space", "action", "expected"),
    [
        (spaces.Discrete(3, start=-1), 2, 1),
        (spaces.MultiDiscrete([[3, 4], [2, 2]], start=[[1, 0], [0, 5]]), [2, 3, 1, 0], [[3, 3], [1, 5]]),
        (spaces.MultiBinary((2, 2)), [0, 1, 1, 0], [[0, 1], [1, 0]]),
        (spaces.Box(-3, 4, (2,), np.int16), [0, 7], [-3, 4]),
        (spaces.Box(-3, 4, (), np.int64), [5], 2),
        (spaces.Box(-2, 4, (1, 2), np.float32), [0.0, 3.0], [[1.0, 4.0]]),
        (spaces.Box(0, np.inf, (2,), np.float32), [-1.0, 7.0], [0.0, 7.0]),
        (spaces.Box(np.array([0, -np.inf]), np.array([8, 1]), dtype=np.float64), [0.0, 3.0], [4.0, 1.0]),
    ],
    ids=str,
)
def test_an_action_is_converted_to_the_environments_space(space, action, expected):
    found = from_policy(space, np.array(action))
    np.testing.assert_array_equal(found, expected)
    assert np.asarray(found).dtype == space.dtype


@pytest.mark.parametrize("space", [*NATIVE, *ACTIONS.values()], ids=str)
def test_recorded_actions_are_those_that_the_policy_had_chosen(space):
    """What `from_policy` and RLlib's scale make of an action, `to_policy` turns back, up to float32."""
    trained = adapted(space)
    chosen = [within_bounds(trained, trained.sample()) for _ in range(20)]
    recorded = [from_policy(space, unsquashed(trained, each)) for each in chosen]
    arrays = stack(space, recorded, "action")
    found = to_policy(space, [arrays[leaf.tensor("action")] for leaf in leaves(space)])
    for leaf, array, expected in zip(leaves(trained), found, [*stack(trained, chosen, "action").values()], strict=True):
        assert array.dtype == expected.dtype, leaf
        np.testing.assert_allclose(array, expected, atol=1e-4)


def within_bounds(space, action):
    """Bring the numbers of a policy's action into a range that is not clipped."""
    if isinstance(space, spaces.Tuple):
        return tuple(within_bounds(each, value) for each, value in zip(space, action, strict=True))
    return np.abs(np.tanh(action)).astype(np.float32) if isinstance(space, spaces.Box) else action


def unsquashed(space, action):
    """What RLlib's connector makes of an action of a bounded Box that needs no adapter."""
    if isinstance(space, spaces.Tuple):
        return tuple(unsquashed(each, value) for each, value in zip(space, action, strict=True))
    return unsquash_action(action, space) if isinstance(space, spaces.Box) else action
