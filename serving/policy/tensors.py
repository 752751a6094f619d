"""The tensors of a policy's graph: their names, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

OBSERVATIONS, ACTION = "observations", "action"
"""The input and the output of a space that is one array; `Leaf.tensor` names those of nested spaces."""
NOISE = "noise"
"""Optional input, `[batch, size]` float32. It defaults to zeros, which make the action greedy."""
STATE_IN, STATE_OUT = "state_in.", "state_out."
"""Prefixes of a recurrent policy's inputs and outputs, `[batch, *shape]` float32."""
ACTION_DIST_INPUTS, ACTION_LOGP, VALUES = "action_dist_inputs", "action_logp", "values"
DETAILS = (ACTION_DIST_INPUTS, ACTION_LOGP, VALUES)
"""Optional outputs: the distribution's inputs `[batch, n]`, the action's log-probability and the value, `[batch]`."""

Tensors = dict[str, NDArray[Any]]
"""Arrays by the names of the graph's inputs or outputs, each `[batch, ...]`."""


@dataclass(frozen=True)
class Rows:
    """A batch of one row per observation that carries more than observations: noise, states or requested details.

    `Policy.act` turns rows of inputs into rows of outputs.
    """

    tensors: Tensors
    details: NDArray[np.bool_]
    """`[batch]`: whether the request asks for the tensors of `DETAILS`."""
    reset: NDArray[np.bool_]
    """`[batch]`: whether the row's state came from another version, so that the initial state replaced it."""

    def __len__(self) -> int:
        return len(self.details)

    def __getitem__(self, rows: slice) -> "Rows":
        return Rows({name: tensor[rows] for name, tensor in self.tensors.items()}, self.details[rows], self.reset[rows])

    @classmethod
    def of(cls, observations: NDArray[Any]) -> "Rows":
        """Return rows of plain observations, `[batch, *shape]`."""
        no = np.zeros(len(observations), np.bool_)
        return cls({OBSERVATIONS: observations}, no, no)


Batch = NDArray[Any] | Rows
"""Plain observations or actions of a space that is one array, `[batch, *shape]`, or rows."""


def joined(batches: Sequence[Batch]) -> Batch:
    """Return the batches of several requests as one: an array if all of them are arrays, else rows."""
    if len(batches) == 1:
        return batches[0]
    plain = [batch for batch in batches if isinstance(batch, np.ndarray)]
    if len(plain) == len(batches):
        return np.concatenate(plain)
    rows = [batch if isinstance(batch, Rows) else Rows.of(batch) for batch in batches]
    names = dict.fromkeys(name for each in rows for name in each.tensors)
    return Rows(
        {name: _joined_tensor(rows, name) for name in names},
        np.concatenate([each.details for each in rows]),
        np.concatenate([each.reset for each in rows]),
    )


def _joined_tensor(rows: list[Rows], name: str) -> NDArray[Any]:
    """Return one tensor of all rows, zeros (the default of all optional inputs) for the rows that lack it."""
    like = next(each.tensors[name] for each in rows if name in each.tensors)
    return np.concatenate([each.tensors.get(name, np.zeros((len(each), *like.shape[1:]), like.dtype)) for each in rows])
