import numpy as np

from serving.policy.tensors import Rows, joined

PLAIN = np.ones((2, 4), np.float32)
NOISY = Rows(
    {"observations": np.full((1, 4), 2, np.float32), "noise": np.full((1, 3), 5, np.float32)},
    details=np.array([True]),
    reset=np.array([False]),
)


def test_a_single_batch_is_returned_unchanged() -> None:
    assert joined([PLAIN]) is PLAIN
    assert joined([NOISY]) is NOISY


def test_arrays_are_joined_into_an_array() -> None:
    found = joined([PLAIN, PLAIN])
    assert isinstance(found, np.ndarray)
    assert found.shape == (4, 4)


def test_optional_tensors_that_some_rows_lack_are_joined_as_zeros() -> None:
    found = joined([PLAIN, NOISY])
    assert isinstance(found, Rows)
    assert len(found) == 3
    assert found.tensors["observations"][:, 0].tolist() == [1, 1, 2]
    assert found.tensors["noise"][:, 0].tolist() == [0, 0, 5]
    assert found.tensors["noise"].dtype == np.float32
    assert found.details.tolist() == [False, False, True]


def test_slicing_rows_slices_each_tensor() -> None:
    found = joined([PLAIN, NOISY])[2:3]
    assert isinstance(found, Rows)
    assert (len(found), found.details.tolist()) == (1, [True])
    assert found.tensors["noise"].tolist() == [[5, 5, 5]]
