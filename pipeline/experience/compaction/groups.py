"""Rows grouped by episode: the episodes' numbers, and where each one's rows begin and end."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.experience.compaction.buckets import episode_words

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Rows sorted by the number of their episode, and by step within it."""

    code: Ints
    """The number of each row's episode, ascending."""
    t: Ints
    """The step of each row, ascending within the episode."""
    count: int
    """The number of episodes."""

    @cached_property
    def starts(self) -> Ints:
        """The first row of each episode."""
        return np.searchsorted(self.code, np.arange(self.count))

    @cached_property
    def ends(self) -> Ints:
        """The row after the last one of each episode."""
        return np.searchsorted(self.code, np.arange(self.count), side="right")

    @cached_property
    def follows(self) -> NDArray[np.bool_]:
        """Whether the row after each row is the next step of the same episode."""
        same = (self.code[1:] == self.code[:-1]) & (self.t[1:] == self.t[:-1] + 1)
        return np.append(same, False)

    def find(self, code: Ints, step: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """Return the row of each episode and step, and whether there is one. A binary search in all at once."""
        low, end = self.starts[code], self.ends[code]
        high = end.copy()
        while (open_ := low < high).any():
            middle = (low + high) // 2
            before = open_ & (self.t[np.minimum(middle, len(self.t) - 1)] < step)
            low = np.where(before, middle + 1, low)
            high = np.where(open_ & ~before, middle, high)
        row = np.minimum(low, len(self.t) - 1)
        return row, (low < end) & (self.t[row] == step)

    def kept(self, rows: NDArray[np.bool_]) -> Self:
        """Return the groups of some rows; episodes without rows keep their numbers."""
        return type(self)(self.code[rows], self.t[rows], self.count)


def episode_codes(episodes: pa.Array) -> tuple[pa.Array, Ints]:
    """Return the different hashes, ascending, and the number of each row's hash among them."""
    encoded = episodes.dictionary_encode()
    first, second = episode_words(encoded.dictionary)
    order = np.lexsort((second, first))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return encoded.dictionary.take(pa.array(order)), rank[encoded.indices.to_numpy()]
