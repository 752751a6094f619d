"""The JSON form of spaces, which `policy.json` and `/model` use, and the arrays that a nested space consists of."""

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.policy.errors import SpaceUnsupported

Json = Any
"""A value that `json.loads` can return."""

LeafSpace = spaces.Box | spaces.Discrete[Any] | spaces.MultiDiscrete | spaces.MultiBinary
"""A space whose elements are single arrays."""

LEAF_TYPES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)

INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
DTYPES = INTEGERS | {"bool", "float16", "float32", "float64"}


class Leaf(NamedTuple):
    """One array of a nested space."""

    path: str
    """Its keys and indices in the space joined by dots, such as `arm.position` or `0.1`; empty if not nested."""
    space: LeafSpace

    def tensor(self, root: str) -> str:
        """Return the name of its tensor in the graph, such as `observations` or `observations.arm.position`."""
        return f"{root}.{self.path}" if self.path else root


def leaves(space: Space[Any]) -> tuple[Leaf, ...]:
    """Return the arrays that a space consists of, depth first: those of Dict by sorted keys, of Tuple by index.

    Raises:
        SpaceUnsupported: a space in it has no JSON form, a key is not a string or has a dot, or there is no array.
    """
    found = tuple(Leaf(".".join(path), leaf) for path, leaf in _walk(space))
    if not found:
        raise SpaceUnsupported(f"{space}, which has no arrays")
    return found


def children(space: spaces.Dict | spaces.Tuple) -> list[tuple[str, Space[Any]]]:
    """Return the spaces directly in a Dict or Tuple, each with its key or index. Raises SpaceUnsupported."""
    if isinstance(space, spaces.Tuple):
        return [(str(index), child) for index, child in enumerate(space.spaces)]
    return sorted(_checked_keys(space).items())


def _walk(space: Space[Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], LeafSpace]]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for name, child in children(space):
            yield from _walk(child, (*path, name))
    elif isinstance(space, LEAF_TYPES) and np.dtype(space.dtype).name in DTYPES:
        yield path, space
    else:
        raise SpaceUnsupported(str(space))


def _checked_keys(space: spaces.Dict) -> dict[str, Space[Any]]:
    for key in space.spaces:
        if not isinstance(key, str) or not key or "." in key:
            raise SpaceUnsupported(f"Dict with the key {key!r} (keys must be strings without dots)")
    return space.spaces


def space_to_json(space: Space[Any]) -> dict[str, Json]:
    """Return the exact JSON form of a space. Infinities are the strings "inf" and "-inf".

    Raises:
        SpaceUnsupported: the space, or one in it, has no JSON form.
    """
    leaves(space)
    dtype = {} if space.dtype is None else {"dtype": np.dtype(space.dtype).name}
    match space:
        case spaces.Box():
            low = _bound_to_json(space.low, space.bounded_below, "-inf")
            high = _bound_to_json(space.high, space.bounded_above, "inf")
            return {"type": "Box", "shape": list(space.shape), **dtype, "low": low, "high": high}
        case spaces.Discrete():
            optional = {} if space.dtype == np.int64 else dtype
            return {"type": "Discrete", "n": int(space.n), "start": int(space.start), **optional}
        case spaces.MultiDiscrete():
            return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist(), **dtype}
        case spaces.MultiBinary():
            return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
        case spaces.Dict():
            return {"type": "Dict", "spaces": {key: space_to_json(child) for key, child in space.spaces.items()}}
        case spaces.Tuple():
            return {"type": "Tuple", "spaces": [space_to_json(child) for child in space.spaces]}
    raise SpaceUnsupported(str(space))  # pragma: no cover - `leaves` has raised it


def space_from_json(description: Json) -> Space[Any]:
    """Return the space whose JSON form `space_to_json` returned.

    Raises:
        SpaceUnsupported: the description is not the JSON form of a space.
    """
    try:
        match description["type"]:
            case "Box":
                return _read_box(description)
            case "Discrete":
                dtype = description.get("dtype", "int64")
                return spaces.Discrete(n=int(description["n"]), start=int(description.get("start", 0)), dtype=dtype)
            case "MultiDiscrete":
                nvec, start = (np.array(description[key], np.int64) for key in ("nvec", "start"))
                return spaces.MultiDiscrete(nvec, dtype=description["dtype"], start=start)
            case "MultiBinary":
                return spaces.MultiBinary(description["n"])
            case "Dict":
                # Gymnasium sorts the keys of a plain dict.
                read = OrderedDict((key, space_from_json(child)) for key, child in description["spaces"].items())
                _checked_keys(space := spaces.Dict(read))
                return space
            case "Tuple":
                return spaces.Tuple([space_from_json(child) for child in description["spaces"]])
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise SpaceUnsupported(f"{str(description)[:200]} ({error!r})") from error
    raise SpaceUnsupported(str(description)[:200])


def space_differences(one: Any, other: Any) -> list[tuple[str, Space[Any], Space[Any]]]:
    """Compare the spaces of two policies or environments.

    Returns:
        `("observation" or "action", space of one, space of the other)` for each pair that differs; empty if none does.
    """
    pairs = [(role, *(getattr(each, f"{role}_space") for each in (one, other))) for role in ("observation", "action")]
    return [(role, first, second) for role, first, second in pairs if space_to_json(first) != space_to_json(second)]


def nearest_to_zero(space: LeafSpace) -> NDArray[Any]:
    """Return the valid element nearest to zero, in the shape and dtype of the space."""
    low: Any = 0
    high: Any = 1
    if isinstance(space, spaces.Box):
        low, high = space.low, space.high
    elif isinstance(space, spaces.Discrete):
        low, high = int(space.start), int(space.start) + int(space.n) - 1
    elif isinstance(space, spaces.MultiDiscrete):
        low, high = space.start, np.add(space.start, space.nvec) - 1
    return np.asarray(np.clip(np.zeros(space.shape or (), space.dtype), low, high), space.dtype)


def integer_range(space: LeafSpace) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return the smallest and the largest valid integers, `[*shape]`, or None for a Box of numbers."""
    if isinstance(space, spaces.Discrete):
        return np.array(space.start, np.int64), np.array(int(space.start) + int(space.n) - 1, np.int64)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary) or np.dtype(space.dtype).kind == "b":
        shape = space.shape or ()
        return np.zeros(shape, np.int8), np.ones(shape, np.int8)
    return None


def _read_box(description: dict[str, Json]) -> spaces.Box:
    shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
    low, bounded_below = _bound_from_json(description["low"], shape, dtype)
    high, bounded_above = _bound_from_json(description["high"], shape, dtype)
    space = spaces.Box(low=low, high=high, shape=shape, dtype=dtype.type)
    # Integers have no infinity, so their bounds do not show whether they are bounded.
    space.bounded_below, space.bounded_above = bounded_below, bounded_above
    return space


def _bound_to_json(bound: NDArray[Any], bounded: NDArray[Any], infinity: str) -> Json:
    # One number replaces an array of equal ones: the bounds of images would be larger than their policies.
    numbers = np.where(bounded, bound.astype(object), infinity)
    uniform = numbers.size > 0 and bool((numbers == numbers.flat[0]).all())
    return numbers.flat[0] if uniform else numbers.tolist()


def _bound_from_json(value: Json, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the bounds and a mask of the bounded elements, both of `shape`."""
    numbers = np.broadcast_to(np.array(value, dtype=object), shape)
    unbounded = np.isin(numbers, ("inf", "-inf"))
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        numbers = np.where(numbers == "-inf", limits.min, np.where(numbers == "inf", limits.max, numbers))
    return numbers.astype(dtype), ~unbounded


def describe(value: Json) -> str:
    """Return a short name of a JSON value for messages to clients, such as `null` or `the string "abc"`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'the string "{value[:20]}"'
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return repr(value)[:40]
