from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from gymnasium import spaces

from pipeline.ope.reading import Reader


@pytest.mark.parametrize(
    ("space", "inputs", "actions"),
    [
        (spaces.Discrete(2), [[-75, 75], [-75, 75], [0, 0], [0, 0]], [0, 0, 1, 1]),
        (spaces.Box(-np.inf, np.inf, ()), [[0, 0]] * 4, [0.0] * 4),
    ],
)
def test_an_action_counts_whose_probability_is_0_as_a_float32_and_none_of_unknown_probability(space, inputs, actions):
    """Of the choices, the last one has another probability than the inputs say; of densities this is not checked."""
    table = pa.table(
        {
            "action_logp": pa.array([-150.0, None, np.log(0.5), np.log(0.4)], pa.float32()),
            "action_dist_inputs": pa.array(inputs, pa.list_(pa.float32())),
            "actions": pa.array(actions),
            "propensity": pa.array([0.0, None, 0.5, 0.4], pa.float32()),
        }
    )
    reader = Reader(SimpleNamespace(schema=table.schema), SimpleNamespace(action_space=space), 10)
    is_choice = isinstance(space, spaces.Discrete)
    assert reader._agrees(table, 2).tolist() == [True, False, True, not is_choice]
