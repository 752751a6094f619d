import numpy as np

from serving.policy.rows import Rows, joined

PLAIN = np.ones((2, 4), np.float32)
NOISY = Rows(
    {"observations": np.full((1, 4), 2, np.float32), "noise": np.full((1, 3), 5, np.float32)},
    details=np.array([True]),
    reset=np.array([False]),
)


def test_one_batch_is_joined_as_it_is() -> None:
    assert joined([PLAIN]) is PLAIN
    assert joined([NOISY]) is NOISY


def test_arrays_are_joined_to_an_array() -> None:
    found = joined([PLAIN, PLAIN])
    assert isinstance(found, np.ndarray)
    assert found.shape == (4, 4)


def test_rows_are_joined_with_zeros_for_what_some_leave_out() -> None:
    found = joined([PLAIN, NOISY])
    assert isinstance(found, Rows)
    assert len(found) == 3
    assert found.tensors["observations"][:, 0].tolist() == [1, 1, 2]
    assert found.tensors["noise"][:, 0].tolist() == [0, 0, 5]
    assert found.tensors["noise"].dtype == np.float32
    assert found.details.tolist() == [False, False, True]


def test_a_slice_of_rows_is_that_of_each_tensor() -> None:
    found = joined([PLAIN, NOISY])[2:3]
    assert isinstance(found, Rows)
    assert (len(found), found.details.tolist()) == (1, [True])
    assert found.tensors["noise"].tolist() == [[5, 5, 5]]
