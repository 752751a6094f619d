from typing import Any

import pytest

from serving.protocols.mlflow_scoring.errors import InvocationMalformed
from serving.protocols.mlflow_scoring.tables import Frame


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
def test_a_split_table_is_read(value: Any, columns: list[Any], rows: list[Any]) -> None:
    frame = Frame.of_split(value)
    assert (list(frame.columns), frame.rows) == (columns, rows)


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
def test_records_are_aligned_by_name(value: Any, columns: list[Any], rows: list[Any]) -> None:
    frame = Frame.of_records(value)
    assert (list(frame.columns), frame.rows) == (columns, rows)


def test_csv_cells_are_numbers_where_they_can_be() -> None:
    frame = Frame.of_csv(b'\xef\xbb\xbfa,"b, c"\r\n1,-0.5\r\n\r\n9007199254740993,x\r\n')
    assert frame == Frame(["a", "b, c"], [[1, -0.5], [9007199254740993, "x"]])
    assert frame.column(1) == frame.named("b, c") == [-0.5, "x"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], '"dataframe_split" is no object with "data", and "columns" and "index" at most'),
        ({"data": [], "name": "x"}, '"dataframe_split" is no object with "data", and "columns" and "index" at most'),
        ({"columns": ["a"]}, '"dataframe_split" is no object with "data", and "columns" and "index" at most'),
        ({"data": None}, "dataframe_split.data is null, expected a list of rows"),
        ({"data": [[1], 2]}, "row 1 of dataframe_split.data is 2, expected a list"),
        ({"data": [[1, 2], [3]]}, "row 1 of dataframe_split.data has 1 cells, expected 2"),
        ({"columns": "ab", "data": [[1, 2]]}, 'dataframe_split.columns is the string "ab", expected a list of names'),
        ({"columns": [["a"]], "data": [[1]]}, "dataframe_split.columns is a list, expected a list of names"),
        ({"index": [1, 2], "data": [[1]]}, "dataframe_split.index is a list of 2, expected one label per row, 1"),
        ({"index": 5, "data": [[1]]}, "dataframe_split.index is 5, expected one label per row, 1"),
    ],
)
def test_what_is_no_split_table_is_said(value: Any, reason: str) -> None:
    with pytest.raises(InvocationMalformed) as caught:
        Frame.of_split(value)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "dataframe_records is an object, expected a list of rows"),
        ([[1], {"a": 1}], "row 1 of dataframe_records is an object, expected a list"),
    ],
)
def test_what_are_no_records_is_said(value: Any, reason: str) -> None:
    with pytest.raises(InvocationMalformed) as caught:
        Frame.of_records(value)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is empty, expected CSV that begins with the names of its columns"),
        (b"a\n\xff", "the body is no CSV in UTF-8: 'utf-8' codec can't decode byte 0xff in position 2: invalid start"),
        (b"a,b\n1", "row 0 of the CSV has 1 cells, expected 2"),
        (b'a\n"' + b"1" * 200_000 + b'"', "the body is no CSV in UTF-8: field larger than field limit (131072)"),
    ],
    ids=["empty", "not UTF-8", "ragged", "a huge cell"],
)
def test_what_is_no_csv_is_said(body: bytes, reason: str) -> None:
    with pytest.raises(InvocationMalformed) as caught:
        Frame.of_csv(body)
    assert caught.value.reason.startswith(reason)
