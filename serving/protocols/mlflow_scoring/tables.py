"""The tables of MLflow's scoring protocol, `dataframe_split`, `dataframe_records` and CSV, read without pandas."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from serving.policy.spaces import Json, describe
from serving.protocols.mlflow_scoring.errors import InvocationMalformed

SPLIT_FORM = '"dataframe_split" must be an object with "data", and optionally "columns" and "index"'


class Table(NamedTuple):
    """A table with one row per observation; all rows have one cell per column."""

    columns: Sequence[Json]
    rows: list[list[Json]]

    def column(self, index: int) -> list[Json]:
        """Return the cells of one column."""
        return [row[index] for row in self.rows]

    @classmethod
    def from_split(cls, value: Json) -> "Table":
        """Read `{"columns": [...], "data": [[...], ...]}`, the form of `DataFrame.to_dict(orient="split")`.

        `columns` is optional and `index` is ignored. The data of a single column may be a flat list.

        Raises:
            InvocationMalformed: `value` has another form.
        """
        if type(value) is not dict or not {"data"} <= value.keys() <= {"columns", "index", "data"}:
            raise InvocationMalformed(SPLIT_FORM)
        rows, columns = _rows(value["data"], "dataframe_split.data"), value.get("columns")
        if columns is not None and (type(columns) is not list or any(type(name) in {list, dict} for name in columns)):
            raise InvocationMalformed(f"dataframe_split.columns is {describe(columns)}, expected a list of names")
        index = value.get("index")
        if index is not None and (type(index) is not list or len(index) != len(rows)):
            found = f"a list of {len(index)}" if type(index) is list else describe(index)
            expected = f"a list of {len(rows)}, one label per row"
            raise InvocationMalformed(f"dataframe_split.index is {found}, expected {expected}")
        return _table(columns, rows, "dataframe_split.data")

    @classmethod
    def from_records(cls, value: Json) -> "Table":
        """Read `[{"name": cell, ...}, ...]`, or rows without names. Raises InvocationMalformed."""
        if type(value) is not list or not all(type(record) is dict for record in value):
            return _table(None, _rows(value, "dataframe_records"), "dataframe_records")
        columns = list(dict.fromkeys(name for record in value for name in record))
        return cls(columns, [[record.get(name) for name in columns] for record in value])

    @classmethod
    def from_csv(cls, body: bytes) -> "Table":
        """Read comma-separated values in UTF-8 whose first line is the header. Raises InvocationMalformed."""
        try:
            lines = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")) if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise InvocationMalformed(f"the body is not CSV in UTF-8: {error}") from None
        if not lines:
            raise InvocationMalformed("the body is empty, expected CSV with a header of column names")
        return _table(lines[0], [[_cell(text) for text in line] for line in lines[1:]], "the CSV")


def _rows(value: Json, path: str) -> list[list[Json]]:
    """Return the rows of a table; a flat list is a single column."""
    if type(value) is not list:
        raise InvocationMalformed(f"{path} is {describe(value)}, expected a list of rows")
    if not any(type(row) is list for row in value):
        return [[cell] for cell in value]
    for number, row in enumerate(value):
        if type(row) is not list:
            raise InvocationMalformed(f"row {number} of {path} is {describe(row)}, expected a list")
    return value


def _cell(text: str) -> Json:
    """Return the number that a cell of CSV represents, or its text."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _table(columns: Sequence[Json] | None, rows: list[list[Json]], path: str) -> Table:
    """Return a table; columns without names are numbered."""
    columns = range(len(rows[0]) if rows else 0) if columns is None else columns
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise InvocationMalformed(f"row {number} of {path} has {len(row)} cells, expected {len(columns)}")
    return Table(columns, rows)
