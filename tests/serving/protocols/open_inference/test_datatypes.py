import numpy as np
import pytest

from serving.policy.spaces import DTYPES as SPACE_DTYPES
from serving.protocols.open_inference.datatypes import DATATYPES, DTYPES, InputTensor, array_of
from serving.protocols.open_inference.errors import InferenceInvalid


def test_every_dtype_that_a_space_may_have_has_a_datatype() -> None:
    assert set(DATATYPES) == set(SPACE_DTYPES)


@pytest.mark.parametrize("datatype", DTYPES)
def test_bytes_and_lists_give_the_same_array(datatype: str) -> None:
    array = np.array([[0, 1], [1, 1]], DTYPES[datatype])
    for elements in (array.tobytes(), array.ravel().tolist()):
        found = array_of(InputTensor("x", datatype, (2, 2), elements))
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


@pytest.mark.parametrize(
    ("datatype", "shape", "elements", "message"),
    [
        ("FP31", (1,), [1], 'x.datatype: the string "FP31", expected one of BOOL, INT8, '),
        ("FP32", (1, 2), [1], "x is a tensor of 1 elements, expected 2 for shape (1, 2)"),
        ("FP32", (1, 2), b"1234", "x is 4 bytes, expected 8 for shape (1, 2) FP32"),
        ("FP32", (-1,), b"1234", "x is 4 bytes, expected -4 for shape (-1,) FP32"),
        ("BOOL", (2,), b"\0\2", "x is a byte that is neither 0 nor 1, expected BOOL"),
        ("FP32", (2,), [1, "1"], 'x.data[1]: the string "1", expected a number'),
        ("FP32", (2,), [1, True], "x.data[1]: true, expected a number"),
        ("INT64", (1,), [1.0], "x.data[0]: 1.0, expected an integer"),
        ("BOOL", (1,), [1], "x.data[0]: 1, expected true or false"),
        ("INT8", (1,), [128], "x.data: a number outside its range, expected INT8"),
        ("UINT64", (1,), [-1], "x.data: a number outside its range, expected UINT64"),
        ("FP64", (1,), [10**400], "x.data: a number outside its range, expected FP64"),
    ],
)
def test_an_invalid_tensor_is_rejected_with_the_reason(
    datatype: str, shape: tuple[int, ...], elements: object, message: str
) -> None:
    with pytest.raises(InferenceInvalid) as caught:
        array_of(InputTensor("x", datatype, shape, elements))  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
