from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.policy.spaces import leaves
from serving.policy.tensors import OBSERVATIONS, Rows
from serving.rollout.trial.observations import (
    CORNERS,
    MAX_LIVE,
    LiveObservations,
    fitting,
    from_bytes,
    generated,
    number_of,
    to_bytes,
)
from tests.serving.policies import CARTPOLE, ROBOT

SPACES = {
    "unbounded": CARTPOLE,
    "nested": ROBOT,
    "image": spaces.Box(0, 255, (4, 4, 3), np.uint8),
    "integers": spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64),
    "float64": spaces.Box(-np.inf, np.inf, (2,), np.float64),
    "largest": spaces.Box(np.finfo(np.float32).min, np.finfo(np.float32).max, (2,)),
    "away from zero": spaces.Box(5e6, np.inf, (2,)),
    "categories": spaces.Discrete(500, start=3),
    "binary": spaces.MultiBinary(3),
    "boolean": spaces.Box(0, 1, (2,), np.bool_),
}


@pytest.mark.parametrize("name", SPACES)
def test_all_generated_observations_are_valid_and_of_a_sane_size(name: str) -> None:
    space = SPACES[name]
    found = generated(space, 0, number_of(space))
    for leaf in leaves(space):
        rows = found[leaf.tensor(OBSERVATIONS)]
        assert (rows.shape, rows.dtype) == ((number_of(space), *(leaf.space.shape or ())), leaf.space.dtype)
        assert all(leaf.space.contains(row[()] if leaf.space.shape else leaf.space.dtype.type(row)) for row in rows)
        assert (np.abs(rows.astype(np.float64)) <= 1e7).all()


def test_the_first_rows_are_zero_and_the_bounds() -> None:
    rows = generated(CARTPOLE, 0, CORNERS)[OBSERVATIONS]
    assert rows[0].tolist() == [0, 0, 0, 0]
    assert rows[1:].tolist() == [[-4.8, -100, -0.42, -100], [4.8, 100, 0.42, 100]] or np.allclose(
        rows[1:], [[-4.8, -100, -0.42, -100], [4.8, 100, 0.42, 100]]
    )


def test_each_category_occurs() -> None:
    space = spaces.Discrete(500, start=3)
    assert set(generated(space, CORNERS, 500)[OBSERVATIONS].tolist()) == set(range(3, 503))
    rows = generated(spaces.MultiDiscrete([2, 70], start=[1, 0]), 0, number_of(spaces.MultiDiscrete([2, 70])))
    assert [set(column) for column in rows[OBSERVATIONS].T.tolist()] == [{1, 2}, set(range(70))]


def test_live_observations_are_kept_once_a_batch_and_the_last_ones() -> None:
    live = LiveObservations()
    assert live.tensors() == {}
    live.look(None)
    for number in range(MAX_LIVE + 5):
        batch = np.full((2, 4), number, np.float32)
        for _ in range(2):
            live.look(batch)
    kept = live.tensors()[OBSERVATIONS]
    assert kept[:, 0].tolist() == list(range(5, MAX_LIVE + 5))


def test_noise_and_states_are_left_out_and_other_spaces_end_what_was_kept() -> None:
    live = LiveObservations()
    live.look(np.zeros((1, 4), np.float32))
    rows = {OBSERVATIONS: np.ones((2, 3), np.float32), "noise": np.zeros((2, 1)), "state_in.h": np.zeros((2, 5))}
    live.look(Rows(rows, np.zeros(2, np.bool_), np.zeros(2, np.bool_)))
    found = live.tensors()
    assert {name: tensor.tolist() for name, tensor in found.items()} == {OBSERVATIONS: [[1, 1, 1]]}
    assert fitting(spaces.Box(-1, 1, (3,)), found) == found
    assert fitting(CARTPOLE, found) == {}


def test_observations_that_are_too_large_are_not_kept() -> None:
    live = LiveObservations()
    live.look(np.zeros((1, 512, 512), np.float32))
    assert live.tensors() == {}


@pytest.mark.parametrize(
    "tensors", [{}, {"observations.arm.grip": np.arange(3), "observations.goal.0": np.ones((3, 2))}]
)
def test_observations_pass_a_pipe_unchanged(tensors: dict[str, Any]) -> None:
    found = from_bytes(to_bytes(tensors))
    assert found.keys() == tensors.keys()
    assert all((found[name] == tensors[name]).all() for name in tensors)
