"""Tables as MLflow's scoring protocol has them, read without pandas: `dataframe_split`, `dataframe_records` and CSV."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from serving.policy.spaces import Json
from serving.protocols.mlflow_scoring.errors import InvocationMalformed
from serving.protocols.native.leaf_reader import describe


class Frame(NamedTuple):
    """A table: one row per observation, all of one width."""

    columns: Sequence[Json]
    rows: list[list[Json]]

    def column(self, index: int) -> list[Json]:
        """Return the cells of one column."""
        return [row[index] for row in self.rows]

    def named(self, name: str) -> list[Json]:
        """Return the cells of the column of a name, which must be there."""
        return self.column(self.columns.index(name))

    @classmethod
    def of_split(cls, value: Json) -> "Frame":
        """Read `{"columns": [...], "data": [[...], ...]}`, as `DataFrame.to_dict(orient="split")` makes it.

        The names of columns may be left out; an index is not looked at. A column alone may be a flat list.

        Raises:
            InvocationMalformed: it is of another form.
        """
        if type(value) is not dict or not {"data"} <= value.keys() <= {"columns", "index", "data"}:
            raise InvocationMalformed('"dataframe_split" is no object with "data", and "columns" and "index" at most')
        rows, columns = _rows(value["data"], "dataframe_split.data"), value.get("columns")
        if columns is not None and (type(columns) is not list or any(type(name) in {list, dict} for name in columns)):
            raise InvocationMalformed(f"dataframe_split.columns is {describe(columns)}, expected a list of names")
        _check_index(value.get("index"), len(rows))
        return _even(columns, rows, "dataframe_split.data")

    @classmethod
    def of_records(cls, value: Json) -> "Frame":
        """Read `[{"name": cell, ...}, ...]`, or rows without names. Raises InvocationMalformed."""
        if type(value) is not list or not all(type(record) is dict for record in value):
            return _even(None, _rows(value, "dataframe_records"), "dataframe_records")
        columns = list(dict.fromkeys(name for record in value for name in record))
        return cls(columns, [[record.get(name) for name in columns] for record in value])

    @classmethod
    def of_csv(cls, body: bytes) -> "Frame":
        """Read CSV with a header, comma-separated, in UTF-8. Raises InvocationMalformed."""
        try:
            lines = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")) if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise InvocationMalformed(f"the body is no CSV in UTF-8: {error}") from None
        if not lines:
            raise InvocationMalformed("the body is empty, expected CSV that begins with the names of its columns")
        return _even(lines[0], [[_cell(text) for text in line] for line in lines[1:]], "the CSV")


def _rows(value: Json, path: str) -> list[list[Json]]:
    """Return lists of cells; a flat list is one column."""
    if type(value) is not list:
        raise InvocationMalformed(f"{path} is {describe(value)}, expected a list of rows")
    if not any(type(row) is list for row in value):
        return [[cell] for cell in value]
    for number, row in enumerate(value):
        if type(row) is not list:
            raise InvocationMalformed(f"row {number} of {path} is {describe(row)}, expected a list")
    return value


def _cell(text: str) -> Json:
    """Return the number that a cell holds, or its text if it holds none."""
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _even(columns: Sequence[Json] | None, rows: list[list[Json]], path: str) -> Frame:
    """Return the table; without names, the columns are numbered."""
    columns = range(len(rows[0]) if rows else 0) if columns is None else columns
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise InvocationMalformed(f"row {number} of {path} has {len(row)} cells, expected {len(columns)}")
    return Frame(columns, rows)


def _check_index(index: Json, length: int) -> None:
    if index is not None and (type(index) is not list or len(index) != length):
        found = f"a list of {len(index)}" if type(index) is list else describe(index)
        raise InvocationMalformed(f"dataframe_split.index is {found}, expected one label per row, {length}")
