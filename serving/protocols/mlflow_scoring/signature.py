"""Reads observations by a model's MLflow signature, with MLflow's conversions.

The signature of a space that is one array has one unnamed tensor; otherwise each array is a tensor with the name of the
graph's input (`observations.arm.position`). Values are converted by NumPy's rules, so "1.5" and true are numbers.
Unlike MLflow, values that are not observations of the space are rejected.
"""

import contextlib
import math
from typing import Any

import numpy as np
from gymnasium import Space
from numpy.typing import NDArray

from serving.errors import RequestError
from serving.policy.spaces import Json, describe, leaves
from serving.policy.tensors import OBSERVATIONS, Tensors
from serving.protocols.json_body import counted
from serving.protocols.mlflow_scoring.errors import InvocationInvalid, InvocationMalformed
from serving.protocols.mlflow_scoring.tables import Table
from serving.protocols.native.leaf_reader import LeafReader
from serving.replica.limits import MAX_OBSERVATIONS


class Signature:
    """Reads the observations of one space.

    Each method returns the tensors by the names of the graph's inputs, `[batch, *shape]` in the space's dtype. It
    raises InvocationMalformed if a value cannot be converted, InvocationInvalid if it does not fit the space, and
    ObservationsTooMany for more than `limit` observations.
    """

    def __init__(self, space: Space[Any]) -> None:
        self._readers = {leaf.tensor(OBSERVATIONS): LeafReader(leaf) for leaf in leaves(space)}
        self._names = ", ".join(self._readers)
        self._only = next(iter(self._readers.items())) if len(self._readers) == 1 else None

    def read_inputs(self, value: Json, limit: int = MAX_OBSERVATIONS) -> Tensors:
        """Read `inputs`: an array, or an object of arrays by name; other names in it are ignored."""
        if self._only is not None:
            name, reader = self._only
            return {name: _read_array(reader, counted(value, limit))}
        if type(value) is not dict:
            raise InvocationInvalid(f"the inputs are {describe(value)}, expected an object with {self._names}")
        self._check_names(value)
        tensors = {name: _read_array(reader, counted(value[name], limit)) for name, reader in self._readers.items()}
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(lengths.values())) > 1:
            raise InvocationInvalid(f"the inputs hold different numbers of observations: {lengths}")
        return tensors

    def read_instances(self, value: Json, limit: int = MAX_OBSERVATIONS) -> Tensors:
        """Read `instances`: as `inputs`, or a list with an object of arrays by name per observation."""
        if self._only is not None or type(value) is not list:
            return self.read_inputs(value, limit)
        for each in counted(value, limit):
            if type(each) is not dict:
                raise InvocationMalformed(f"an instance is {describe(each)}, expected an object with {self._names}")
            self._check_names(each)
        return self.read_inputs({name: [each[name] for each in value] for name in self._readers})

    def read_table(self, table: Table) -> Tensors:
        """Read a table: a column per number of a single flat array, or a column of flat lists per array."""
        if not table.rows:
            raise InvocationInvalid("the table has no row, expected one per observation")
        if self._only is None:
            index = {name: number for number, name in reversed([*enumerate(table.columns)])}
            self._check_names(index)
            return {name: _read_column(reader, table.column(index[name])) for name, reader in self._readers.items()}
        name, reader = self._only
        width = len(table.columns)
        if width == 1:
            return {name: _read_column(reader, table.column(0))}
        if reader.shape != (width,):
            raise InvocationInvalid(f"the table has {width} columns, expected {reader.expected} in each row")
        return {name: _read_array(reader, table.lists())}

    def _check_names(self, given: Json) -> None:
        missing = [name for name in self._readers if name not in given]
        if missing:
            raise InvocationInvalid(f"missing {', '.join(missing)}")


def _read_array(reader: LeafReader, value: Json) -> NDArray[Any]:
    if type(value) is not list or not value or type(value[0]) is dict:
        found = "an empty list" if value == [] else ("a list of objects" if type(value) is list else describe(value))
        raise InvocationInvalid(f"found {found}, expected a list of observations of {reader.expected}")
    if len(value) == 1:  # The most frequent case; `read` is faster than `read_batch`.
        with contextlib.suppress(RequestError):
            return reader.read(value[0])
    try:
        return reader.read_batch(value)
    except RequestError as error:
        return _read_numbers(reader, _numbers(reader, value, error))


def _read_numbers(reader: LeafReader, numbers: NDArray[Any]) -> NDArray[Any]:
    try:
        return reader.read_batch(numbers.tolist())
    except RequestError as error:
        raise InvocationInvalid(str(error)) from None


def _read_column(reader: LeafReader, cells: list[Json]) -> NDArray[Any]:
    """Read a column as one array. Each cell is a flat list of the observation's numbers, or its only number."""
    numbers, size = _numbers(reader, cells), math.prod(reader.shape)
    single = reader.shape in {(), (1,)}
    if numbers.shape != (len(cells), size) and not (single and numbers.shape == (len(cells),)):
        raise InvocationInvalid(f"a cell has shape {numbers.shape[1:]}, expected {size} numbers in a flat list")
    return _read_numbers(reader, numbers.reshape(len(cells), *reader.shape))


def _numbers(reader: LeafReader, value: Json, error: RequestError | None = None) -> NDArray[Any]:
    """Convert values as MLflow does, but reject integers that the conversion would round or wrap around.

    The message is that of `error`, if given.
    """
    try:
        with np.errstate(all="ignore"):
            numbers, exact = np.array(value, reader.dtype), np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        reason = error or f"a cell is neither a {reader.dtype} number nor a list of them"
        raise InvocationMalformed(str(reason)) from None
    if reader.dtype.kind != "f" and not np.array_equal(numbers, exact):
        raise InvocationInvalid(str(error or f"a number does not fit {reader.dtype}"))
    return numbers
