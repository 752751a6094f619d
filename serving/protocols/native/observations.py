"""Reads observations from their JSON form: objects for Dict, lists for Tuple and arrays, numbers for Discrete."""

from abc import ABC, abstractmethod
from typing import Any

from gymnasium import Space, spaces

from serving.policy.spaces import Json, children, describe, leaves
from serving.policy.tensors import OBSERVATIONS, Tensors
from serving.protocols.errors import ObservationKeyMissing, ObservationKeyUnknown, ObservationLength, ObservationType
from serving.protocols.native.leaf_reader import LeafReader

NESTED = (spaces.Dict, spaces.Tuple)


class ObservationReader:
    """Reads the observations of a space as one array per leaf. The constructor raises SpaceUnsupported."""

    def __init__(self, space: Space[Any]) -> None:
        self._plan = _plan(space)
        self._readers = {leaf.tensor(OBSERVATIONS): LeafReader(leaf) for leaf in leaves(space)}
        self._nested = isinstance(space, NESTED)

    def read(self, value: Json) -> Tensors:
        """Return one observation, `[1, *shape]` per leaf. Raises RequestError with the path of what does not fit."""
        parts = self._flatten(value, "observation")
        return {name: reader.read(part) for (name, reader), part in zip(self._readers.items(), parts, strict=True)}

    def read_batch(self, values: Json) -> Tensors:
        """Return a list of observations, `[batch, *shape]` per leaf. Raises as `read` does."""
        if not self._nested:
            return {name: reader.read_batch(values) for name, reader in self._readers.items()}
        if type(values) is not list:
            raise ObservationType("observations", describe(values), "a list of observations")
        rows = [self._flatten(value, f"observations[{index}]") for index, value in enumerate(values)]
        return {
            name: reader.read_batch([row[i] for row in rows]) for i, (name, reader) in enumerate(self._readers.items())
        }

    def _flatten(self, value: Json, path: str) -> list[Json]:
        found: list[Json] = []
        self._plan.collect(value, path, found)
        return found


class _Plan(ABC):
    """Collects the leaves of one space from JSON. It is built once, because walking the space is slow."""

    @abstractmethod
    def collect(self, value: Json, path: str, found: list[Json]) -> None:
        """Append the JSON forms of the leaves in a value, in the order of `leaves`. Raises RequestError."""


class _LeafPlan(_Plan):
    def collect(self, value: Json, path: str, found: list[Json]) -> None:  # noqa: ARG002
        found.append(value)


class _DictPlan(_Plan):
    def __init__(self, space: spaces.Dict) -> None:
        self._parts = [(name, isinstance(child, NESTED), _plan(child)) for name, child in children(space)]
        self._keys = [name for name, _, _ in self._parts]
        self._key_set = frozenset(self._keys)

    def collect(self, value: Json, path: str, found: list[Json]) -> None:
        if type(value) is not dict or value.keys() != self._key_set:
            raise self._fault(value, path)
        for name, nested, plan in self._parts:
            if nested:
                plan.collect(value[name], f"{path}.{name}", found)
            else:
                found.append(value[name])

    def _fault(self, value: Json, path: str) -> Exception:
        if type(value) is not dict:
            return ObservationType(path, describe(value), f"an object with {', '.join(self._keys)}")
        for key in self._keys:
            if key not in value:
                return ObservationKeyMissing(path, key, self._keys)
        return ObservationKeyUnknown(path, next(key for key in value if key not in self._key_set), self._keys)


class _TuplePlan(_Plan):
    def __init__(self, space: spaces.Tuple) -> None:
        self._parts = [(name, _plan(child)) for name, child in children(space)]

    def collect(self, value: Json, path: str, found: list[Json]) -> None:
        if type(value) is not list:
            raise ObservationType(path, describe(value), f"a list of {len(self._parts)} elements")
        if len(value) != len(self._parts):
            raise ObservationLength(path, len(value), len(self._parts))
        for (name, plan), part in zip(self._parts, value, strict=True):
            plan.collect(part, f"{path}.{name}", found)


def _plan(space: Space[Any]) -> _Plan:
    if isinstance(space, spaces.Dict):
        return _DictPlan(space)
    return _TuplePlan(space) if isinstance(space, spaces.Tuple) else _LeafPlan()
