"""The JSON form of observations: lists for arrays, as a client author would guess.

A reader is prepared once for a space, so that a request pays for neither a lookup nor a needless copy.
"""

import math
import struct
from collections.abc import Iterable
from itertools import chain
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.errors import ObservationNotFinite, ObservationShape, ObservationType, SpaceUnsupported
from serving.spaces import Json


class BoxReader:
    """Turns the JSON form of a Box's observations into arrays, and says exactly what is wrong with the rest.

    Bounds are not checked: environments do step out of them, by rounding or by design.
    """

    def __init__(self, space: spaces.Box) -> None:
        self.shape: tuple[int, ...] = space.shape
        self.dtype: np.dtype[Any] = np.dtype(space.dtype)
        self.expected = f"{self.shape} {self.dtype.name}"
        self._floating = self.dtype.kind == "f"
        self._types: set[type] = {int, float} if self._floating else {int}
        self._packed = _packer(self.shape, self.dtype)

    def read(self, value: Json) -> NDArray[Any]:
        """Return one observation as a batch of one, `[1, *shape]` in the space's dtype.

        Raises:
            ObservationShape, ObservationType, ObservationNotFinite: with the path of what doesn't fit.
        """
        array = self._read_flat(value)
        if array is None:
            array = self._convert([value], len(self.shape) + 1)
        if array is None or array.shape[1:] != self.shape:
            raise self._fault(value, "observation")
        return array

    def _read_flat(self, value: Json) -> NDArray[Any] | None:
        """Do as `_convert`, in a fifth of its time, for what most requests hold: a list of a few floats."""
        if self._packed is None or type(value) is not list or not self._types.issuperset(map(type, value)):
            return None
        try:
            packed = self._packed.pack(*value)
        except (struct.error, OverflowError):
            return None
        # The sum of finite numbers may overflow too: then `_convert` looks at each.
        return np.ndarray((1, *self.shape), self.dtype, packed) if math.isfinite(sum(value)) else None

    def read_batch(self, values: Json) -> NDArray[Any]:
        """Return a list of observations, `[batch, *shape]` in the space's dtype. Raises as `read`."""
        if type(values) is not list:
            raise ObservationType("observations", describe(values), f"a list of observations of {self.expected}")
        if not values:
            return np.empty((0, *self.shape), self.dtype)
        array = self._convert(values, len(self.shape) + 1)
        if array is None or array.shape[1:] != self.shape:
            raise self._batch_fault(values)
        return array

    def _convert(self, value: list[Json], depth: int) -> NDArray[Any] | None:
        """Return the nested list as an array, or None when anything about it is wrong."""
        try:
            # NumPy would take strings, booleans and None for numbers.
            if not self._types.issuperset(map(type, _leaves(value, depth))):
                return None
            with np.errstate(over="ignore"):
                array = np.array(value, self.dtype)
        except (TypeError, ValueError, OverflowError):
            return None
        return array if not self._floating or np.isfinite(array).all() else None

    def _batch_fault(self, values: list[Json]) -> Exception:
        for index, value in enumerate(values):
            array = self._convert([value], len(self.shape) + 1)
            if array is None or array.shape[1:] != self.shape:
                return self._fault(value, f"observations[{index}]")
        raise AssertionError("every observation fits, the batch does not")  # pragma: no cover

    def _fault(self, value: Json, path: str) -> Exception:
        """Return the error for a value that `_convert` refused: slow and exact, for bad input only."""
        for leaf, leaf_path in _walk(value, path):
            fault = self._leaf_fault(leaf, leaf_path)
            if fault is not None:
                return fault
        return ObservationShape(path, _shape(value), self.expected)

    def _leaf_fault(self, leaf: Json, path: str) -> Exception | None:
        kind = "a number" if self._floating else "an integer"
        if type(leaf) not in self._types:
            whole = "[" not in path.removeprefix("observations[")
            return ObservationType(path, describe(leaf), f"{self.expected}" if whole else kind)
        if self._floating and not self._representable(leaf):
            return ObservationNotFinite(path, _number_name(leaf), self.dtype.name)
        if not self._floating and not np.iinfo(self.dtype).min <= leaf <= np.iinfo(self.dtype).max:
            return ObservationType(path, describe(leaf), f"a {self.dtype.name}")
        return None

    def _representable(self, leaf: float) -> bool:
        try:
            with np.errstate(over="ignore"):
                return bool(np.isfinite(np.array(leaf, self.dtype)))
        except OverflowError:
            return False


def observation_reader(space: Space[Any]) -> BoxReader:
    """Return the reader for a space's observations. Raises SpaceUnsupported for anything but a Box."""
    if isinstance(space, spaces.Box):
        return BoxReader(space)
    raise SpaceUnsupported(f"{space} as observations")


def _packer(shape: tuple[int, ...], dtype: np.dtype[Any]) -> struct.Struct | None:
    """Return what packs one flat observation of floats, None for any other."""
    if len(shape) == 1 and dtype.char in "fd" and dtype.isnative:
        return struct.Struct(f"={shape[0]}{dtype.char}")
    return None


def _leaves(value: Iterable[Json], depth: int) -> Iterable[Json]:
    for _ in range(depth - 1):
        value = chain.from_iterable(value)
    return value


def _walk(value: Json, path: str) -> Iterable[tuple[Json, str]]:
    if type(value) is not list:
        yield value, path
        return
    for index, item in enumerate(value):
        yield from _walk(item, f"{path}[{index}]")


def _shape(value: Json) -> tuple[int, ...] | None:
    """Return the shape of a nested list, None where its lists differ in length."""
    if type(value) is not list:
        return ()
    inner: tuple[int, ...] | None = ()
    for index, shape in enumerate(map(_shape, value)):
        inner = shape if index == 0 or shape == inner else None
    return None if inner is None else (len(value), *inner)


def describe(value: Json) -> str:
    """Name a JSON value as a client author knows it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'the string "{value[:20]}"'
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    return _number_name(value)


def _number_name(number: float) -> str:
    if isinstance(number, float) and not math.isfinite(number):
        return "NaN" if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity")
    return f"{number:g}" if isinstance(number, float) else str(number)[:40]
