"""The JSON form of observations: objects for Dict, lists for Tuple and arrays, numbers for Discrete."""

from typing import Any

from gymnasium import Space, spaces

from serving.errors import (
    ObservationKeyMissing,
    ObservationKeyUnknown,
    ObservationLength,
    ObservationType,
)
from serving.leaf_reader import LeafReader, describe
from serving.rows import Tensors
from serving.spaces import OBSERVATIONS, Json, children, leaves


class ObservationReader:
    """Turns the JSON form of a space's observations into one array per leaf.

    Raises:
        SpaceUnsupported: the space has no JSON form.
    """

    def __init__(self, space: Space[Any]) -> None:
        self._space = space
        self._readers = {leaf.tensor(OBSERVATIONS): LeafReader(leaf) for leaf in leaves(space)}
        self._nested = isinstance(space, spaces.Dict | spaces.Tuple)

    def read(self, value: Json) -> Tensors:
        """Return one observation as a batch of one. Raises RequestError with the path of what doesn't fit."""
        parts = _flatten(self._space, value, "observation")
        return {name: reader.read(part) for (name, reader), part in zip(self._readers.items(), parts, strict=True)}

    def read_batch(self, values: Json) -> Tensors:
        """Return a list of observations as a batch. Raises as `read`."""
        if not self._nested:
            return {name: reader.read_batch(values) for name, reader in self._readers.items()}
        if type(values) is not list:
            raise ObservationType("observations", describe(values), "a list of observations")
        rows = [_flatten(self._space, value, f"observations[{index}]") for index, value in enumerate(values)]
        return {
            name: reader.read_batch([row[i] for row in rows]) for i, (name, reader) in enumerate(self._readers.items())
        }


def _flatten(space: Space[Any], value: Json, path: str) -> list[Json]:
    """Return the JSON forms of the leaves in a value, in the order of `leaves`."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return [value]
    inner = children(space)
    names = [name for name, _ in inner]
    parts = (_keyed if isinstance(space, spaces.Dict) else _listed)(value, names, path)
    return [
        leaf
        for (name, child), part in zip(inner, parts, strict=True)
        for leaf in _flatten(child, part, f"{path}.{name}")
    ]


def _keyed(value: Json, keys: list[str], path: str) -> list[Json]:
    if type(value) is not dict:
        raise ObservationType(path, describe(value), f"an object with {', '.join(keys)}")
    for key in keys:
        if key not in value:
            raise ObservationKeyMissing(path, key, keys)
    for key in value:
        if key not in keys:
            raise ObservationKeyUnknown(path, key, keys)
    return [value[key] for key in keys]


def _listed(value: Json, indices: list[str], path: str) -> list[Json]:
    if type(value) is not list:
        raise ObservationType(path, describe(value), f"a list of {len(indices)} elements")
    if len(value) != len(indices):
        raise ObservationLength(path, len(value), len(indices))
    return value
