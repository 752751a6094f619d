from typing import Any

import pytest

from serving.protocols.mlflow_scoring.errors import InvocationMalformed
from serving.protocols.mlflow_scoring.tables import SPLIT_FORM, Table


@pytest.mark.parametrize(
    ("value", "columns", "rows"),
    [
        ({"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}, ["a", "b"], [[1, 2], [3, 4]]),
        ({"columns": ["a", "b"], "index": ["x"], "data": [[1, 2]]}, ["a", "b"], [[1, 2]]),
        ({"data": [[1, 2]]}, [0, 1], [[1, 2]]),
        ({"columns": ["a"], "data": [1, 2]}, ["a"], [[1], [2]]),
        ({"data": []}, [], []),
    ],
)
def test_dataframe_split_is_read(value: Any, columns: list[Any], rows: list[Any]) -> None:
    table = Table.from_split(value)
    assert (list(table.columns), table.rows) == (columns, rows)


@pytest.mark.parametrize(
    ("value", "columns", "rows"),
    [
        ([{"a": 1, "b": 2}, {"b": 4, "a": 3}], ["a", "b"], [[1, 2], [3, 4]]),
        ([{"a": 1}, {"a": 3, "b": 4}], ["a", "b"], [[1, None], [3, 4]]),
        ([[1, 2], [3, 4]], [0, 1], [[1, 2], [3, 4]]),
        ([1, 2], [0], [[1], [2]]),
        ([], [], []),
    ],
)
def test_records_are_aligned_by_column_name(value: Any, columns: list[Any], rows: list[Any]) -> None:
    table = Table.from_records(value)
    assert list(table.columns) == columns
    assert [list(row) for row in zip(*(table.column(index) for index in range(len(columns))), strict=True)] == rows


def test_csv_cells_are_numbers_if_possible_and_else_text() -> None:
    table = Table.from_csv(b'\xef\xbb\xbfa,"b, c"\r\n1,-0.5\r\n\r\n9007199254740993,x\r\n')
    assert table == Table(["a", "b, c"], [[1, -0.5], [9007199254740993, "x"]])
    assert table.column(1) == [-0.5, "x"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], SPLIT_FORM),
        ({"data": [], "name": "x"}, SPLIT_FORM),
        ({"columns": ["a"]}, SPLIT_FORM),
        ({"data": None}, "dataframe_split.data is null, expected a list of rows"),
        ({"data": [[1], 2]}, "row 1 of dataframe_split.data is 2, expected a list"),
        ({"data": [[1, 2], [3]]}, "row 1 of dataframe_split.data has 1 cells, expected 2"),
        ({"columns": "ab", "data": [[1, 2]]}, 'dataframe_split.columns is the string "ab", expected a list of names'),
        ({"columns": [["a"]], "data": [[1]]}, "dataframe_split.columns is a list, expected a list of names"),
        (
            {"index": [1, 2], "data": [[1]]},
            "dataframe_split.index is a list of 2, expected a list of 1, one label per row",
        ),
        ({"index": 5, "data": [[1]]}, "dataframe_split.index is 5, expected a list of 1, one label per row"),
    ],
)
def test_an_invalid_dataframe_split_is_rejected_with_the_reason(value: Any, reason: str) -> None:
    with pytest.raises(InvocationMalformed) as caught:
        Table.from_split(value)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "dataframe_records is an object, expected a list of rows"),
        ([[1], {"a": 1}], "row 1 of dataframe_records is an object, expected a list"),
    ],
)
def test_invalid_records_are_rejected_with_the_reason(value: Any, reason: str) -> None:
    with pytest.raises(InvocationMalformed) as caught:
        Table.from_records(value)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is empty, expected CSV with a header of column names"),
        (b"a\n\xff", "the body is not CSV in UTF-8: 'utf-8' codec can't decode byte 0xff in position 2: invalid start"),
        (b"a,b\n1", "row 0 of the CSV has 1 cells, expected 2"),
        (b'a\n"' + b"1" * 200_000 + b'"', "the body is not CSV in UTF-8: field larger than field limit (131072)"),
    ],
    ids=["empty", "not UTF-8", "ragged", "a huge cell"],
)
def test_invalid_csv_is_rejected_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(InvocationMalformed) as caught:
        Table.from_csv(body)
    assert caught.value.reason.startswith(reason)
