"""Reads observations from their JSON form: objects for Dict, lists for Tuple and arrays, numbers for Discrete."""

from typing import Any

from gymnasium import Space, spaces

from serving.policy.spaces import Json, children, describe, leaves
from serving.policy.tensors import OBSERVATIONS, Tensors
from serving.protocols.errors import ObservationKeyMissing, ObservationKeyUnknown, ObservationLength, ObservationType
from serving.protocols.native.leaf_reader import LeafReader


class ObservationReader:
    """Reads the observations of a space as one array per leaf. The constructor raises SpaceUnsupported."""

    def __init__(self, space: Space[Any]) -> None:
        self._plan = _plan(space)
        self._readers = {leaf.tensor(OBSERVATIONS): LeafReader(leaf) for leaf in leaves(space)}

    def read(self, value: Json) -> Tensors:
        """Return one observation, `[1, *shape]` per leaf. Raises RequestError with the path of what does not fit."""
        parts = self._flatten(value, "observation")
        return {name: reader.read(part) for (name, reader), part in zip(self._readers.items(), parts, strict=True)}

    def read_batch(self, values: Json) -> Tensors:
        """Return a list of observations, `[batch, *shape]` per leaf. Raises as `read` does."""
        if self._plan is None:
            return {name: reader.read_batch(values) for name, reader in self._readers.items()}
        if type(values) is not list:
            raise ObservationType("observations", describe(values), "a list of observations")
        rows = [self._flatten(value, f"observations[{index}]") for index, value in enumerate(values)]
        readers = enumerate(self._readers.items())
        return {name: reader.read_batch([row[i] for row in rows]) for i, (name, reader) in readers}

    def _flatten(self, value: Json, path: str) -> list[Json]:
        if self._plan is None:
            return [value]
        found: list[Json] = []
        self._plan.collect(value, path, found)
        return found


class _DictPlan:
    """Collects the leaves of observations of a Dict space. It is built once, because walking the space is slow."""

    def __init__(self, space: spaces.Dict) -> None:
        self._parts = [(key, _plan(child)) for key, child in children(space)]
        self._keys = dict(self._parts).keys()
        self._expected = ", ".join(self._keys)

    def collect(self, value: Json, path: str, found: list[Json]) -> None:
        """Append the JSON forms of the leaves in a value, in the order of `leaves`. Raises RequestError."""
        if type(value) is not dict or value.keys() != self._keys:
            raise self._fault(value, path)
        for key, plan in self._parts:
            if plan is None:
                found.append(value[key])
            else:
                plan.collect(value[key], f"{path}.{key}", found)

    def _fault(self, value: Json, path: str) -> Exception:
        if type(value) is not dict:
            return ObservationType(path, describe(value), f"an object with {self._expected}")
        for key in self._keys:
            if key not in value:
                return ObservationKeyMissing(path, f'no key "{key}"', self._expected)
        unknown = next(key for key in value if key not in self._keys)
        return ObservationKeyUnknown(path, f'an unknown key "{unknown}"', self._expected)


class _TuplePlan:
    """Collects the leaves of observations of a Tuple space."""

    def __init__(self, space: spaces.Tuple) -> None:
        self._parts = [(name, _plan(child)) for name, child in children(space)]

    def collect(self, value: Json, path: str, found: list[Json]) -> None:
        """Append the JSON forms of the leaves in a value, in the order of `leaves`. Raises RequestError."""
        if type(value) is not list:
            raise ObservationType(path, describe(value), f"a list of {len(self._parts)} elements")
        if len(value) != len(self._parts):
            raise ObservationLength(path, f"a list of {len(value)}", f"{len(self._parts)} elements")
        for (name, plan), part in zip(self._parts, value, strict=True):
            if plan is None:
                found.append(part)
            else:
                plan.collect(part, f"{path}.{name}", found)


def _plan(space: Space[Any]) -> _DictPlan | _TuplePlan | None:
    """Return the plan of a Dict or a Tuple; a leaf needs none."""
    if isinstance(space, spaces.Dict):
        return _DictPlan(space)
    return _TuplePlan(space) if isinstance(space, spaces.Tuple) else None
