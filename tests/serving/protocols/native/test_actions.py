import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.policy.errors import SpaceUnsupported
from serving.policy.spaces import leaves
from serving.protocols.native.actions import action_writer
from tests.serving.policies import ROBOT_ACTIONS

SPACES: list[Any] = [
    spaces.Discrete(2),
    spaces.Discrete(3, start=5),
    spaces.MultiDiscrete([2, 3], start=[1, 0]),
    spaces.MultiBinary((2, 2)),
    spaces.Box(-2, 2, (1,)),
    spaces.Box(-2, 2, (2, 3), np.float64),
    spaces.Box(0, np.inf, ()),
    spaces.Box(-3, 3, (2,), np.int32),
    ROBOT_ACTIONS,
]


def tensors(space: Any, samples: list[Any]) -> dict[str, Any]:
    """Return the outputs of a graph for actions that the space sampled."""

    def part(sample: Any, path: str) -> Any:
        for key in filter(None, path.split(".")):
            sample = sample[int(key) if isinstance(sample, tuple) else key]
        return sample

    return {leaf.tensor("action"): np.stack([part(sample, leaf.path) for sample in samples]) for leaf in leaves(space)}


@pytest.mark.filterwarnings("ignore:.*Casting input x to numpy array")
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_an_action_keeps_every_bit_through_json_and_stays_in_its_space(space: Any) -> None:
    space.seed(0)
    samples = [space.sample() for _ in range(10)]
    written = json.loads(json.dumps(action_writer(space)(tensors(space, samples))))
    for action, sample in zip(written, samples, strict=True):
        assert space.contains(action)
        again = tensors(space, [action]) if not isinstance(space, spaces.Dict) else None
        if again:
            np.testing.assert_array_equal(again["action"][0].astype(space.dtype), sample)


def test_nested_actions_are_objects_and_lists() -> None:
    found = action_writer(ROBOT_ACTIONS)(
        {
            "action.drive": np.array([[0.5, -1]], np.float32),
            "action.flags.0": np.array([[1, 0]], np.int8),
            "action.flags.1": np.array([[1, 2]]),
            "action.mode": np.array([6]),
        }
    )
    assert found == [{"drive": [0.5, -1.0], "flags": [[1, 0], [1, 2]], "mode": 6}]


def test_spaces_without_a_writer_are_rejected() -> None:
    with pytest.raises(SpaceUnsupported):
        action_writer(spaces.Text(3))
