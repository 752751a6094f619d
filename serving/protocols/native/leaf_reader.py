"""Reads one array of an observation from its JSON form: nested lists, a number, or base64.

A reader is built once for a space, so that requests need no lookups of its properties.
"""

import functools
import math
import struct
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from serving.policy.spaces import Json, Leaf, describe, integer_range
from serving.protocols.errors import ObservationNotFinite, ObservationRange, ObservationShape, ObservationType
from serving.protocols.native import base64_arrays

Values = TypeVar("Values", list[Json], NDArray[Any])

ARRAYS_FOR = {"f": "fiu", "i": "iu", "u": "iu", "b": "iub"}
"""The NumPy kinds of arrays that can be read as an array of each kind, if all their values fit."""


class LeafReader:
    """Reads the observations of one leaf, and raises errors that name the exact value that does not fit.

    The bounds of Discrete, MultiDiscrete and MultiBinary are checked. Those of a Box are not, because the observations
    of many environments exceed them, by rounding or by design.

    Args:
        leaf: The space of the array and its path in the observation space.
    """

    def __init__(self, leaf: Leaf) -> None:
        self.shape: tuple[int, ...] = leaf.space.shape or ()
        self.dtype: np.dtype[Any] = np.dtype(leaf.space.dtype)
        self._suffix = f".{leaf.path}" if leaf.path else ""
        self._range = integer_range(leaf.space)
        self._floating = self.dtype.kind == "f"
        # A cast to bool would turn any number into true.
        self._read_dtype = np.dtype(np.int8) if self.dtype.kind == "b" else self.dtype
        binary = self.dtype.kind == "b" or isinstance(leaf.space, spaces.MultiBinary)
        self._kinds = ARRAYS_FOR["b" if binary else self.dtype.kind]
        self._types: set[type] = {int, float} if self._floating else ({int, bool} if binary else {int})
        flat_floats = len(self.shape) == 1 and self.dtype.char in "fd" and self.dtype.isnative
        self._packed = struct.Struct(f"={self.shape[0]}{self.dtype.char}") if flat_floats else None
        self.expected = f"{self.shape} {self.dtype.name}"
        if self._range is not None and not self.shape:
            self.expected = _integers(*self._range)

    def read(self, value: Json) -> NDArray[Any]:
        """Return one observation, `[1, *shape]` in the space's dtype.

        Raises:
            ObservationShape, ObservationType, ObservationRange, ObservationNotFinite, ObservationEncoding: with the
                path of the value that does not fit.
        """
        array = self._read_flat(value)
        return array if array is not None else self._read_one(value, f"observation{self._suffix}")

    def read_batch(self, values: Json) -> NDArray[Any]:
        """Return a list of observations, or one base64 array of them, as `[batch, *shape]`. Raises as `read` does."""
        if base64_arrays.is_encoded(values):
            return self.read_stack(base64_arrays.decode(values, "observations"), "observations")
        if type(values) is not list:
            raise ObservationType("observations", describe(values), f"a list of observations of {self.expected}")
        if not values:
            return np.empty((0, *self.shape), self.dtype)
        array = self._convert(values)
        if array is not None:
            return array
        if dict in set(map(type, values)):  # some of them may be in base64
            paths = (f"observations[{index}]{self._suffix}" for index in range(len(values)))
            return np.concatenate([self._read_one(value, path) for value, path in zip(values, paths, strict=True)])
        index = _first_invalid(values, lambda part: self._convert(part) is not None)
        raise self._fault(values[index], f"observations[{index}]{self._suffix}")

    def _read_flat(self, value: Json) -> NDArray[Any] | None:
        """Return a flat list of floats as an array, five times as fast as `_convert`; None for any other form."""
        if self._packed is None or type(value) is not list or not self._types.issuperset(map(type, value)):
            return None
        try:
            packed = self._packed.pack(*value)
            finite = math.isfinite(sum(value))
        except (struct.error, OverflowError):
            return None
        # The sum of finite numbers may overflow as well; then `_convert` checks each of them.
        return np.ndarray((1, *self.shape), self.dtype, packed) if finite else None

    def _read_one(self, value: Json, path: str) -> NDArray[Any]:
        if base64_arrays.is_encoded(value):
            return self._from_array(base64_arrays.decode(value, path), path)
        array = self._convert([value])
        if array is None:
            raise self._fault(value, path)
        return array

    def read_stack(self, stack: NDArray[Any], path: str) -> NDArray[Any]:
        """Return an array of observations, `[batch, *shape]`, in the space's dtype. Raises as `read` does."""
        if not stack.ndim or stack.shape[1:] != self.shape:
            raise ObservationShape(path, f"shape {stack.shape}", f"a list of observations of {self.expected}")
        self._check_kind(stack, path)
        array = self._cast(stack)
        if array is not None:
            return array
        index = _first_invalid(stack, lambda part: self._cast(part) is not None)
        raise self._fault(stack[index].tolist(), f"{path}[{index}]")

    def _from_array(self, array: NDArray[Any], path: str) -> NDArray[Any]:
        if array.shape != self.shape:
            raise ObservationShape(path, f"shape {array.shape}", self.expected)
        self._check_kind(array, path)
        cast = self._cast(array)
        if cast is None:
            raise self._fault(array.tolist(), path)
        return cast[None]

    def _check_kind(self, array: NDArray[Any], path: str) -> None:
        if array.dtype.kind not in self._kinds:
            raise ObservationType(path, f"an array of {array.dtype.name}", self.expected)

    def _cast(self, array: NDArray[Any]) -> NDArray[Any] | None:
        """Return the array in the space's dtype, or None if its values do not fit."""
        if array.dtype == self.dtype:
            return array if self._allows(array) else None
        with np.errstate(over="ignore"):
            cast = array.astype(self.dtype, copy=False)
        exact = self._floating or np.array_equal(cast, array)
        return cast if exact and self._allows(cast) else None

    def _convert(self, values: list[Json]) -> NDArray[Any] | None:
        """Return a list of observations as an array, or None if it is not valid."""
        array = self._numbers(values, self.shape)
        if array is None or not self._in_range(array):
            return None
        return array if self._read_dtype is self.dtype else array.view(self.dtype)

    def _numbers(self, values: list[Json], shape: tuple[int, ...]) -> NDArray[Any] | None:
        """Return a list of values of a shape as an array, or None unless all are finite numbers of the dtype."""
        try:
            # NumPy would convert strings, booleans and None to numbers.
            if not self._types.issuperset(map(type, _items(values, len(shape)))):
                return None
            with np.errstate(over="ignore"):
                array = np.array(values, self._read_dtype)
        except (TypeError, ValueError, OverflowError):
            return None
        return array if array.shape[1:] == shape and self._is_finite(array) else None

    def _are_numbers(self, shape: tuple[int, ...], values: list[Json]) -> bool:
        return self._numbers(values, shape) is not None

    def _allows(self, array: NDArray[Any]) -> bool:
        """Return whether all values of an array, which is in the space's dtype, are valid."""
        return self._is_finite(array) and self._in_range(array)

    def _is_finite(self, array: NDArray[Any]) -> bool:
        # In half the time of `all`.
        return not self._floating or bool(np.count_nonzero(np.isfinite(array)) == array.size)

    def _in_range(self, array: NDArray[Any]) -> bool:
        return self._range is None or bool(((array >= self._range[0]) & (array <= self._range[1])).all())

    def _fault(self, value: Json, path: str) -> Exception:
        """Return the error for a value that `_convert` or `_cast` rejected, in about the time of two conversions."""
        numbers = self._numbers([value], self.shape)
        if numbers is not None:
            return self._range_fault(numbers[0], path)
        item: Json = value
        index: tuple[int, ...] = ()
        while len(index) < len(self.shape) and type(item) is list and len(item) == self.shape[len(index)]:
            rest = self.shape[len(index) + 1 :]
            position = _first_invalid(item, functools.partial(self._are_numbers, rest))
            item, index = item[position], (*index, position)
        if type(item) is list or (len(index) < len(self.shape) and type(item) in self._types):
            shape = _shape(value)
            found = "lists of different lengths" if shape is None else f"shape {shape}"
            return ObservationShape(path, found, self.expected)
        return self._item_fault(item, path, index)

    def _range_fault(self, numbers: NDArray[Any], path: str) -> Exception:
        low, high = self._range or (numbers, numbers)  # without a range all numbers are valid
        index = tuple(np.argwhere((numbers < low) | (numbers > high))[0].tolist())
        return ObservationRange(_place(path, index), str(numbers[index]), _integers(low[index], high[index]))

    def _item_fault(self, item: Json, path: str, index: tuple[int, ...]) -> Exception:
        """Return the error for an item at the index of an observation, which is no finite number of the dtype."""
        kind, place = "a number" if self._floating else "an integer", _place(path, index)
        if type(item) not in self._types:
            return ObservationType(place, describe(item), kind if index else self.expected)
        if self._floating:
            return ObservationNotFinite(place, describe(item), f"a finite {self.dtype.name}")
        if self._range is None:
            return ObservationType(place, describe(item), f"a {self.dtype.name}")
        low, high = self._range
        return ObservationRange(place, str(item), _integers(low[index], high[index]))


def _integers(low: NDArray[Any], high: NDArray[Any]) -> str:
    return f"an integer from {low} to {high}"


def _items(value: Iterable[Json], depth: int) -> Iterable[Json]:
    """Return the items that are `depth` levels inside a nested list."""
    for _ in range(depth):
        value = chain.from_iterable(value)
    return value


def _first_invalid(values: Values, is_valid: Callable[[Values], bool]) -> int:
    """Return the index of the first invalid value, of which there is one, in about the time of one check of all."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        if is_valid(values[low:middle]):
            low = middle
        else:
            high = middle
    return low


def _place(path: str, index: tuple[int, ...]) -> str:
    return path + "".join(f"[{position}]" for position in index)


def _shape(value: Json) -> tuple[int, ...] | None:
    """Return the shape of a nested list, or None if its lists differ in length."""
    shape: tuple[int, ...] = ()
    level = [value]
    while set(map(type, level)) == {list}:
        lengths = set(map(len, level))
        if len(lengths) > 1:
            return None
        shape = (*shape, *lengths)
        level = list(chain.from_iterable(level))
    return None if list in set(map(type, level)) else shape
