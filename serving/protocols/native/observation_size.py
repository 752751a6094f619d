"""The size of one observation in a request body, for the advice to those whose observations exceed the limit."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from serving.policy.spaces import Leaf, leaves

FLOAT_DIGITS = len(repr(float(np.finfo(np.float64).min)))
"""The length of the longest float."""
SEPARATOR = len(", ")
BODY = '{"observation": , "details": true}'
NAMED = '{"": }, '
ENCODED = '{{"base64": "", "dtype": "{dtype}", "shape": {shape}}}'


@dataclass(frozen=True)
class ObservationSize:
    """The largest size of one observation of a space, in bytes."""

    lists: int
    """As JSON lists."""
    base64: int
    """With its arrays in base64."""

    @classmethod
    def of(cls, space: Space[Any]) -> "ObservationSize":
        """Return the size of a space's observations. Raises SpaceUnsupported."""
        found = leaves(space)
        names = len(BODY) + sum(len(NAMED) + len(name) for leaf in found for name in leaf.path.split("."))
        return cls(names + sum(map(_in_lists, found)), names + sum(map(_in_base64, found)))

    def remedy(self, limit: int) -> str:
        """Return what to do about a body that exceeds `limit` bytes."""
        if self.lists <= limit:
            return "send fewer observations per request"
        if self.base64 <= limit:
            forms = f"takes up to {self.lists} bytes as lists, and {self.base64} in base64 or as a binary tensor"
            return f"send fewer observations per request, and arrays in base64: one observation {forms}"
        return f"one observation takes {self.base64} bytes even in base64: serve with max_body_bytes={self.base64}"


def _in_base64(leaf: Leaf) -> int:
    dtype, shape = np.dtype(leaf.space.dtype), [*(leaf.space.shape or ())]
    content = math.ceil(_count(leaf) * dtype.itemsize / 3) * 4
    return len(ENCODED.format(dtype=dtype.name, shape=shape)) + content


def _in_lists(leaf: Leaf) -> int:
    shape = leaf.space.shape or ()
    brackets = sum(math.prod(shape[:depth]) for depth in range(len(shape))) * len("[]")
    return _count(leaf) * (_digits(leaf) + SEPARATOR) + brackets


def _count(leaf: Leaf) -> int:
    return math.prod(leaf.space.shape or ())


def _digits(leaf: Leaf) -> int:
    """Return the length of the longest number of a space."""
    if np.dtype(leaf.space.dtype).kind == "f":
        return FLOAT_DIGITS
    if isinstance(leaf.space, spaces.Box):
        return max(len(str(bound)) for bound in (leaf.space.low.min(initial=0), leaf.space.high.max(initial=0)))
    return len(str(np.iinfo(np.int64).min))
