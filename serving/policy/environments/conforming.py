"""Converts what environments return to their observation spaces, where nothing is lost by it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

Note = Callable[[str], object]
"""Receives a description of each conversion."""


class Unfit(Exception):
    """A returned value is not what the contract says: what it is, and what was expected."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found, expected)
        self.found, self.expected = found, expected


def observation(space: Space[Any], note: Note, path: str = "") -> Callable[[Any], Any]:
    """Return a function that returns an observation in the structure, the shapes and the dtypes of its space.

    Arrays are copied, because some environments change theirs in place. The bounds of a Box are not checked: networks
    have none.

    Args:
        space: the observation space.
        note: receives a description of each conversion.
        path: the keys of the space in the outermost one, joined by dots.

    The returned function raises Unfit if the value does not fit, or holds NaN or infinity.
    """
    if isinstance(space, spaces.Dict):
        return _dict({key: observation(child, note, f"{path}.{key}") for key, child in space.spaces.items()}, path)
    if isinstance(space, spaces.Tuple):
        return _tuple([observation(child, note, f"{path}.{i}") for i, child in enumerate(space.spaces)], path)
    if isinstance(space, spaces.Discrete):
        return _discrete(space, note, path)
    return _array(space, note, path) if isinstance(space.dtype, np.dtype) else lambda value: value


def _array(space: Space[Any], note: Note, path: str) -> Callable[[Any], Any]:
    dtype, shape = np.dtype(space.dtype), space.shape
    may_be_infinite = dtype.kind == "f"
    is_bounded = isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary)
    name = _name(path)

    def conform(value: Any) -> Any:
        fits = type(value) is np.ndarray and value.dtype == dtype and value.shape == shape
        value = value.copy() if fits else _converted(value, dtype, shape, name, note)
        if may_be_infinite and not np.isfinite(value).all():
            at = tuple(int(index) for index in np.argwhere(~np.isfinite(value))[0])
            raise Unfit(f"returned {name} with {value[at]}{_at(at)}", "finite numbers")
        if is_bounded and not space.contains(value):
            raise Unfit(f"returned {name} {_shown(value)}", f"an element of {space}")
        return value

    return conform


def _converted(value: Any, dtype: np.dtype[Any], shape: Any, name: str, note: Note) -> NDArray[Any]:
    expected = f"shape {shape} {dtype.name}"
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise Unfit(f"returned {name} {_shown(value)}", f"an array of {expected}")
    found = f"returned {name} of shape {array.shape} {array.dtype.name}"
    if array.shape != shape:
        raise Unfit(found, expected)
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
    if not (np.can_cast(array.dtype, dtype, "same_kind") or (converted == array).all()):
        raise Unfit(found, expected)
    if dtype.kind != "f" and not (converted == array).all():
        raise Unfit(f"returned {name} with values that {dtype.name} cannot hold", expected)
    if not isinstance(value, np.ndarray):
        note(f"{name} is a {type(value).__name__} instead of an array, and is converted to {dtype.name}")
    elif array.dtype != dtype:
        note(f"{name} is {array.dtype.name} instead of {dtype.name}, and is converted")
    return converted


def _discrete(space: spaces.Discrete[Any], note: Note, path: str) -> Callable[[Any], Any]:
    low, high, name = int(space.start), int(space.start) + int(space.n) - 1, _name(path)

    def conform(value: Any) -> Any:
        if not isinstance(value, int | np.integer):
            value = _integer(value, name, f"an integer from {low} to {high}", note)
        if not low <= value <= high:
            raise Unfit(f"returned {name} {value}", f"an integer from {low} to {high}")
        return value

    return conform


def _integer(value: Any, name: str, expected: str, note: Note) -> Any:
    if not isinstance(value, np.ndarray) or value.size != 1 or value.dtype.kind not in "iu":
        raise Unfit(f"returned {name} {_shown(value)}", expected)
    if value.ndim:
        note(f"{name} is an array of shape {value.shape} instead of an integer, and is converted")
    return value.reshape(())[()]


def _dict(children: Mapping[str, Callable[[Any], Any]], path: str) -> Callable[[Any], Any]:
    def conform(value: Any) -> Any:
        if not isinstance(value, Mapping) or value.keys() != children.keys():
            found = f"keys {sorted(map(str, value))}" if isinstance(value, Mapping) else _shown(value)
            raise Unfit(f"returned {_name(path)} with {found}", f"a dict with the keys {sorted(children)}")
        return {key: child(value[key]) for key, child in children.items()}

    return conform


def _tuple(children: list[Callable[[Any], Any]], path: str) -> Callable[[Any], Any]:
    def conform(value: Any) -> Any:
        if not isinstance(value, tuple | list) or len(value) != len(children):
            raise Unfit(f"returned {_name(path)} {_shown(value)}", f"a tuple of {len(children)} elements")
        return tuple(child(part) for child, part in zip(children, value, strict=True))

    return conform


def reward(value: Any, note: Note) -> float:
    """Return a reward as a number. Raises Unfit if it is none, or not finite."""
    number = value if type(value) is float else _number(value, note)
    if not math.isfinite(number):
        raise Unfit(f"returned the reward {number}", "a finite number")
    return number


def _number(value: Any, note: Note) -> float:
    if isinstance(value, float | int | np.number | np.bool_):  # the check below takes microseconds
        return float(value)
    if isinstance(value, np.ndarray) and value.ndim:
        if value.size != 1 or value.dtype.kind not in "biuf":
            raise Unfit(f"returned a reward of shape {value.shape} {value.dtype.name}", "a number")
        note(f"the reward is an array of shape {value.shape} instead of a number, and is converted")
        return float(value.reshape(()))
    if not isinstance(value, SupportsFloat):
        raise Unfit(f"returned the reward {_shown(value)}", "a number")
    return float(value)


def flag(value: Any, name: str, note: Note) -> bool:
    """Return `terminated` or `truncated` as a bool. Raises Unfit if it is none."""
    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "biu":
        note(f"{name} is an array of shape {value.shape} instead of a bool, and is converted")
    elif not isinstance(value, bool | np.bool_ | int | np.integer):
        raise Unfit(f"returned {_shown(value)} as {name}", "True or False")
    return bool(value)


def values(result: Any, names: str, count: int) -> tuple[Any, ...]:
    """Return the values that a call returned. Raises Unfit unless they are `count`, and the last, `info`, is a dict."""
    if not isinstance(result, tuple):
        raise Unfit(f"returned {_shown(result)}", names)
    if len(result) != count:
        raise Unfit(f"returned {len(result)} values", names)
    if not isinstance(result[-1], dict):
        raise Unfit(f"returned {_shown(result[-1])} as info", "a dict")
    return result


def _name(path: str) -> str:
    return f"the observation {path.removeprefix('.')}" if path else "the observation"


def _at(index: tuple[int, ...]) -> str:
    return f" at index {', '.join(map(str, index))}" if index else ""


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} {value.dtype.name}" if value.size > 4 else f"{value.tolist()}"  # noqa: PLR2004
    return " ".join(repr(value).split())[:60]
