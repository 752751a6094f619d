"""The observations on which a candidate is tried: some of the whole space, and some that live requests had."""

import io
from collections import deque
from collections.abc import Iterator

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.policy.spaces import LeafSpace, integer_range, leaves, nearest_to_zero
from serving.policy.tensors import OBSERVATIONS, Batch, Rows, Tensors

MAX_LIVE = 48
"""The most live observations that a replica keeps, the last ones."""
MAX_LIVE_BYTES = 8 << 20

CORNERS = 3
"""The first generated rows: nearest to zero, the lowest and the highest observation."""
LEAST_SAMPLES, MOST_SAMPLES = 61, 1021
"""How many further rows are generated: as many as the largest space of categories has, within these limits."""

LARGE = 1e6
"""Bounds beyond this, such as the largest float32, say nothing of the values that occur."""
UNBOUNDED = 100.0
"""What takes the place of such bounds, and of infinite ones."""


def generated(space: Space[object], start: int, count: int) -> Tensors:
    """Return the generated rows `start` to `start + count`, by the names of a graph's inputs, each `[count, *shape]`.

    After the corners, each row holds the next category of each space of categories, and a random number in the range of
    each other number. Equal arguments give equal rows.
    """
    random = np.random.default_rng(start)
    rows = range(start, start + count)
    return {leaf.tensor(OBSERVATIONS): _rows(leaf.space, rows, random) for leaf in leaves(space)}


def number_of(space: Space[object]) -> int:
    """Return how many rows `generated` has."""
    categories = [
        int(np.max(leaf.space.nvec)) for leaf in leaves(space) if isinstance(leaf.space, spaces.MultiDiscrete)
    ]
    categories += [int(leaf.space.n) for leaf in leaves(space) if isinstance(leaf.space, spaces.Discrete)]
    return CORNERS + min(max(LEAST_SAMPLES, *categories, 0), MOST_SAMPLES)


def _rows(space: LeafSpace, rows: range, random: np.random.Generator) -> NDArray[np.generic]:
    low, high = _bounds(space)
    found = [_row(space, row, low, high, random) for row in rows]
    return np.stack(found).astype(space.dtype)


def _row(
    space: LeafSpace, row: int, low: NDArray[np.float64], high: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.generic]:
    if row < CORNERS:
        return (nearest_to_zero(space), low, high)[row]
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return low + (row - CORNERS) % (high - low + 1)
    numbers = random.uniform(low, high)
    return numbers if np.dtype(space.dtype).kind == "f" else np.round(numbers)


def _bounds(space: LeafSpace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and the highest observation that are tried."""
    if (integers := integer_range(space)) is not None:
        return integers[0].astype(np.float64), integers[1].astype(np.float64)
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))  # type: ignore[union-attr]
    low = np.where(np.abs(low) <= LARGE, low, np.where(low < 0, np.minimum(-UNBOUNDED, high), low))
    high = np.where(np.abs(high) <= LARGE, high, np.where(high > 0, np.maximum(UNBOUNDED, low), high))
    return np.nan_to_num(low), np.nan_to_num(high)


class LiveObservations:
    """The last observations of a replica's requests, one of every look at its batches."""

    def __init__(self) -> None:
        self._rows: deque[Tensors] = deque(maxlen=MAX_LIVE)
        self._last: Batch | None = None

    def look(self, last: Batch | None) -> None:
        """Keep the first observation of the last batch, if it is another batch than at the last look."""
        if last is not None and last is not self._last:
            self._last = last
            row = last[:1]
            tensors = row.tensors if isinstance(row, Rows) else {OBSERVATIONS: row}
            kept = {name: tensor.copy() for name, tensor in tensors.items() if name.partition(".")[0] == OBSERVATIONS}
            if sum(tensor.nbytes for tensor in kept.values()) * MAX_LIVE <= MAX_LIVE_BYTES:
                self._rows.append(kept)

    def tensors(self) -> Tensors:
        """Return the observations, `[rows, *shape]` by the names of a graph's inputs; empty if there are none."""
        rows = list(self._rows)
        alike = [row for row in rows if _form(row) == _form(rows[-1])]  # another version may have other spaces
        return {name: np.concatenate([row[name] for row in alike]) for name in (rows[-1] if rows else ())}


def to_bytes(tensors: Tensors) -> bytes:
    """Return tensors as bytes for a pipe."""
    file = io.BytesIO()
    np.savez(file, **tensors)  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(content: bytes) -> Tensors:
    """Return the tensors that `to_bytes` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def fitting(space: Space[object], live: Tensors) -> Tensors:
    """Return live observations if they are observations of this space, else none."""
    expected = generated(space, 0, 1)
    return live if live and _form(live) == _form(expected) else {}


def slices(tensors: Tensors, size: int) -> Iterator[Tensors]:
    """Yield the rows in batches of a size."""
    count = len(next(iter(tensors.values()), ()))
    for start in range(0, count, size):
        yield {name: tensor[start : start + size] for name, tensor in tensors.items()}


def _form(tensors: Tensors) -> dict[str, tuple[object, ...]]:
    return {name: (tensor.dtype, *tensor.shape[1:]) for name, tensor in tensors.items()}
