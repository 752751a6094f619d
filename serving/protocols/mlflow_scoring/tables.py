"""The tables of MLflow's scoring protocol, `dataframe_split`, `dataframe_records` and CSV, read without pandas."""

import csv
import io
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from serving.policy.spaces import Json, describe
from serving.protocols.json_body import counted
from serving.protocols.mlflow_scoring.errors import InvocationMalformed
from serving.replica.limits import MAX_OBSERVATIONS

SPLIT_FORM = '"dataframe_split" must be an object with "data", and optionally "columns" and "index"'


class Table(NamedTuple):
    """A table with one row per observation."""

    columns: Sequence[Json]
    rows: list[Any]
    """Each is a list with one cell per column, or a record, whose missing columns are null."""

    def column(self, index: int) -> list[Json]:
        """Return the cells of one column."""
        name = self.columns[index]
        return [row.get(name) if type(row) is dict else row[index] for row in self.rows]

    def lists(self) -> list[list[Json]]:
        """Return the rows as lists, up to the first record that lacks a column, which is no observation.

        With the nulls of all of them, the lists could be many times the size of the body.
        """
        lists = []
        for row in self.rows:
            lists.append([row.get(name) for name in self.columns] if type(row) is dict else row)
            if len(row) < len(self.columns):
                break
        return lists

    @classmethod
    def from_split(cls, value: Json, limit: int = MAX_OBSERVATIONS) -> "Table":
        """Read `{"columns": [...], "data": [[...], ...]}`, the form of `DataFrame.to_dict(orient="split")`.

        `columns` is optional and `index` is ignored. The data of a single column may be a flat list.

        Raises:
            InvocationMalformed: `value` has another form.
            ObservationsTooMany: it has more than `limit` rows.
        """
        if type(value) is not dict or not {"data"} <= value.keys() <= {"columns", "index", "data"}:
            raise InvocationMalformed(SPLIT_FORM)
        rows, columns = _rows(counted(value["data"], limit), "dataframe_split.data"), value.get("columns")
        if columns is not None and (type(columns) is not list or any(type(name) in {list, dict} for name in columns)):
            raise InvocationMalformed(f"dataframe_split.columns is {describe(columns)}, expected a list of names")
        index = value.get("index")
        if index is not None and (type(index) is not list or len(index) != len(rows)):
            found = f"a list of {len(index)}" if type(index) is list else describe(index)
            expected = f"a list of {len(rows)}, one label per row"
            raise InvocationMalformed(f"dataframe_split.index is {found}, expected {expected}")
        return _table(columns, rows, "dataframe_split.data")

    @classmethod
    def from_records(cls, value: Json, limit: int = MAX_OBSERVATIONS) -> "Table":
        """Read `[{"name": cell, ...}, ...]`, or rows without names. Raises as `from_split` does."""
        if type(counted(value, limit)) is not list or not all(type(record) is dict for record in value):
            return _table(None, _rows(value, "dataframe_records"), "dataframe_records")
        return cls(list(dict.fromkeys(name for record in value for name in record)), value)

    @classmethod
    def from_csv(cls, body: bytes, limit: int = MAX_OBSERVATIONS) -> "Table":
        """Read comma-separated values in UTF-8 whose first line is the header. Raises as `from_split` does."""
        try:
            reader = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""))
            lines = list(islice(filter(None, reader), limit + 2))
        except (UnicodeDecodeError, csv.Error) as error:
            raise InvocationMalformed(f"the body is not CSV in UTF-8: {error}") from None
        if not lines:
            raise InvocationMalformed("the body is empty, expected CSV with a header of column names")
        texts = _table(lines[0], counted(lines[1:], limit), "the CSV")
        columns = [_cells(texts.column(index)) for index in range(len(texts.columns))]
        return cls(texts.columns, [list(row) for row in zip(*columns, strict=True)])


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


def _cells(texts: list[str]) -> list[Json]:
    """Return the numbers that the cells of a column represent, up to a cell that is none; the other cells are text."""
    cells: list[Json] = []
    try:
        for text in texts:
            cells.append(int(text) if text.lstrip("+-").isdecimal() else float(text))  # noqa: PERF401 - it may break off
    except ValueError:
        pass
    return cells + texts[len(cells) :]


def _table(columns: Sequence[Json] | None, rows: list[list[Json]], path: str) -> Table:
    """Return a table; columns without names are numbered."""
    columns = range(len(rows[0]) if rows else 0) if columns is None else columns
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            raise InvocationMalformed(f"row {number} of {path} has {len(row)} cells, expected {len(columns)}")
    return Table(columns, rows)
