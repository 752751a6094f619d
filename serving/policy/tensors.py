"""What requests that are more than plain observations feed the graph, and what they get from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.policy.spaces import OBSERVATIONS

Tensors = dict[str, NDArray[Any]]
"""Arrays by the names that the graph has for them, each `[batch, ...]`."""


@dataclass(frozen=True)
class Rows:
    """Tensors of one row per observation, and what is to be said about each row. `act` turns one into another."""

    tensors: Tensors
    """By the names of the graph's inputs or outputs, each `[batch, ...]`."""
    details: NDArray[np.bool_]
    """`[batch]`: whether distribution, log-probability and value are asked for."""
    reset: NDArray[np.bool_]
    """`[batch]`: whether the state that came with it was another version's."""

    def __len__(self) -> int:
        return len(self.details)

    def __getitem__(self, rows: slice) -> "Rows":
        return Rows({name: tensor[rows] for name, tensor in self.tensors.items()}, self.details[rows], self.reset[rows])

    @classmethod
    def of(cls, observations: NDArray[Any]) -> "Rows":
        """Return plain observations as rows that ask for nothing else."""
        no = np.zeros(len(observations), np.bool_)
        return cls({OBSERVATIONS: observations}, no, no)


Batch = NDArray[Any] | Rows
"""Plain observations or actions of one leaf, `[batch, *shape]`, or rows."""


def joined(batches: Sequence[Batch]) -> Batch:
    """Return the batches of several requests as one: an array if all are arrays, else rows."""
    if len(batches) == 1:
        return batches[0]
    plain = [batch for batch in batches if isinstance(batch, np.ndarray)]
    if len(plain) == len(batches):
        return np.concatenate(plain)
    rows = [batch if isinstance(batch, Rows) else Rows.of(batch) for batch in batches]
    names = dict.fromkeys(name for each in rows for name in each.tensors)
    return Rows(
        {name: _column(rows, name) for name in names},
        np.concatenate([each.details for each in rows]),
        np.concatenate([each.reset for each in rows]),
    )


def _column(rows: list[Rows], name: str) -> NDArray[Any]:
    """Return one tensor of all rows: zeros, which all optional inputs are by default, where it isn't given."""
    like = next(each.tensors[name] for each in rows if name in each.tensors)
    return np.concatenate([each.tensors.get(name, np.zeros((len(each), *like.shape[1:]), like.dtype)) for each in rows])
