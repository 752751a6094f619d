from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.protocols.mlflow_scoring.errors import InvocationInvalid, InvocationMalformed
from serving.protocols.mlflow_scoring.signature import Signature
from serving.protocols.mlflow_scoring.tables import Table

BOX = Signature(spaces.Box(-1, 1, (2,)))
IMAGE = Signature(spaces.Box(0, 255, (2, 2), np.uint8))
COUNT = Signature(spaces.Discrete(3, start=5))
BITS = Signature(spaces.MultiBinary(2))
PAIR = Signature(spaces.Dict(count=spaces.Discrete(3), image=spaces.Box(0, 255, (2, 2), np.uint8)))


@pytest.mark.parametrize(
    ("signature", "value", "expected"),
    [
        (BOX, [[1, 2.5]], [[1, 2.5]]),
        (BOX, [["1", True], [0.5, "-2.5"]], [[1, 1], [0.5, -2.5]]),
        (IMAGE, [[[0, 1], [2, 255]]], [[[0, 1], [2, 255]]]),
        (IMAGE, [[["0", 1.0], [2, True]]], [[[0, 1], [2, 1]]]),
        (COUNT, [5, 7], [5, 7]),
        (COUNT, ["6", 6.0], [6, 6]),
        (BITS, [[True, 0], [1, False]], [[1, 0], [1, 0]]),
    ],
)
def test_values_are_converted_by_numpys_rules(signature: Signature, value: Any, expected: Any) -> None:
    read = signature.read_inputs(value)["observations"]
    np.testing.assert_array_equal(read, expected, strict=False)
    assert read.dtype == {id(BOX): np.float32, id(IMAGE): np.uint8, id(BITS): np.int8}.get(id(signature), np.int64)


@pytest.mark.parametrize(
    ("signature", "value", "kind", "reason"),
    [
        (BOX, [[1, "x"]], InvocationMalformed, 'observations[0][1] is the string "x", expected a number'),
        (BOX, [[1, None]], InvocationInvalid, "observations[0][1] is NaN, expected a finite float32"),
        (BOX, [1, 2], InvocationInvalid, "observations[0] has shape (), expected (2,) float32"),
        (BOX, [], InvocationInvalid, "found an empty list, expected a list of observations of (2,) float32"),
        (BOX, {"observations": [[1, 2]]}, InvocationInvalid, "found an object, expected a list of observations"),
        (BOX, [{"base64": ""}], InvocationInvalid, "found a list of objects, expected a list of observations of"),
        (COUNT, [5.5], InvocationInvalid, "observations[0] is 5.5, expected an integer from 5 to 7"),
        (COUNT, ["5.5"], InvocationMalformed, 'observations[0] is the string "5.5", expected an integer from 5 to 7'),
        (COUNT, [1e300], InvocationMalformed, "observations[0] is 1e+300, expected an integer from 5 to 7"),
        (COUNT, ["8"], InvocationInvalid, "observations[0] is 8, expected an integer from 5 to 7"),
        (IMAGE, [[[0, 1], [2, 256]]], InvocationMalformed, "observations[0][1][1] is 256, expected a uint8"),
        (IMAGE, [[[0, 1], [2, 256.0]]], InvocationMalformed, "observations[0][1][1] is 256.0, expected an integer"),
        (
            PAIR,
            [1],
            InvocationInvalid,
            "the inputs are a list, expected an object with observations.count, observations.im",
        ),
        (PAIR, {"observations.count": [1]}, InvocationInvalid, "missing observations.image"),
        (
            PAIR,
            {"observations.count": [1, 2], "observations.image": [[[0, 1], [2, 3]]]},
            InvocationInvalid,
            "the inputs hold different numbers of observations: {'observations.count': 2, 'observations.image': 1}",
        ),
    ],
)
def test_values_that_do_not_fit_are_rejected_with_the_reason(
    signature: Signature, value: Any, kind: type[Any], reason: str
) -> None:
    with pytest.raises(kind) as caught:
        signature.read_inputs(value)
    assert caught.value.reason.startswith(reason)


def test_instances_of_a_nested_space_are_objects_of_arrays_by_name() -> None:
    instance = {"observations.count": 2, "observations.image": [[0, 1], [2, 3]], "more": None}
    read = PAIR.read_instances([instance, instance])
    assert {name: array.shape for name, array in read.items()} == {
        "observations.count": (2,),
        "observations.image": (2, 2, 2),
    }


@pytest.mark.parametrize(
    ("instances", "kind", "reason"),
    [
        ([5], InvocationMalformed, "an instance is 5, expected an object with observations.count, observations.image"),
        ([{"observations.count": 2}], InvocationInvalid, "missing observations.image"),
    ],
)
def test_an_invalid_instance_is_rejected_with_the_reason(instances: Any, kind: type[Any], reason: str) -> None:
    with pytest.raises(kind) as caught:
        PAIR.read_instances(instances)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("signature", "table", "expected"),
    [
        (BOX, Table(["a", "b"], [[1, 2], ["3", 4]]), [[1, 2], [3, 4]]),
        (BOX, Table(["flat"], [[[1, 2]], [["3", 4]]]), [[1, 2], [3, 4]]),
        (IMAGE, Table(["flat"], [[[0, 1, 2, 3]]]), [[[0, 1], [2, 3]]]),
        (COUNT, Table(["a"], [[5], ["6"]]), [5, 6]),
        (COUNT, Table(["a"], [[[5]], [[6]]]), [5, 6]),
    ],
)
def test_a_cell_is_a_number_or_a_flat_list(signature: Signature, table: Table, expected: Any) -> None:
    np.testing.assert_array_equal(signature.read_table(table)["observations"], expected)


def test_the_columns_of_a_nested_space_are_found_by_name() -> None:
    table = Table(["more", "observations.image", "observations.count"], [["x", [0, 1, 2, 3], 2]])
    read = PAIR.read_table(table)
    assert (read["observations.count"].tolist(), read["observations.image"].tolist()) == ([2], [[[0, 1], [2, 3]]])


@pytest.mark.parametrize(
    ("signature", "table", "reason"),
    [
        (BOX, Table([], []), "the table has no row, expected one per observation"),
        (BOX, Table(["a", "b", "c"], [[1, 2, 3]]), "the table has 3 columns, expected (2,) float32 in each row"),
        (BOX, Table(["a"], [[1]]), "a cell has shape (), expected 2 numbers in a flat list"),
        (BOX, Table(["a"], [[[1, 2, 3]]]), "a cell has shape (3,), expected 2 numbers in a flat list"),
        (IMAGE, Table(["a"], [[[[0, 1], [2, 3]]]]), "a cell has shape (2, 2), expected 4 numbers in a flat list"),
        (COUNT, Table(["a"], [[5.5]]), "a number does not fit int64"),
        (COUNT, Table(["a"], [[9]]), "observations[0] is 9, expected an integer from 5 to 7"),
        (PAIR, Table(["observations.count"], [[1]]), "missing observations.image"),
    ],
)
def test_a_table_that_does_not_fit_is_rejected_with_the_reason(signature: Signature, table: Table, reason: str) -> None:
    with pytest.raises(InvocationInvalid) as caught:
        signature.read_table(table)
    assert caught.value.reason == reason
