"""How much the greedy actions of two policies differ."""

from dataclasses import dataclass

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from pipeline.experiment.shadow.distributions import is_choice
from serving.policy.spaces import leaves
from serving.policy.tensors import ACTION, Tensors

AGREES_WITHIN = 0.05
"""The distance of a number of an action, as a share of its range, up to which two actions agree."""


@dataclass(frozen=True)
class ActionDifference:
    """The differences of the actions of each row.

    Attributes:
        agrees: Whether all choices are equal, and all numbers within AGREES_WITHIN.
        distance: The mean distance of the numbers as a share of their ranges; 0 if there are only choices.
    """

    agrees: NDArray[np.bool_]
    distance: NDArray[np.float64]


class ActionComparison:
    """Compares actions of one space. The range of a number without two bounds is 1: its distance is in its own unit."""

    def __init__(self, action_space: Space[object]) -> None:
        self._leaves = leaves(action_space)
        self.has_numbers = any(not is_choice(leaf.space) for leaf in self._leaves)
        """Whether there are actions that are numbers and not choices."""

    def __call__(self, one: Tensors, other: Tensors) -> ActionDifference:
        """Compare two batches of actions, `[rows, *shape]` by the names of the graph's outputs."""
        rows = len(next(iter(one.values())))
        agrees, distances = np.ones(rows, np.bool_), [np.zeros((rows, 0))]
        for leaf in self._leaves:
            name = leaf.tensor(ACTION)
            if is_choice(leaf.space):
                agrees &= (one[name] == other[name]).reshape(rows, -1).all(axis=1)
                continue
            assert isinstance(leaf.space, spaces.Box)  # noqa: S101  # all other leaves are choices
            width = np.asarray(leaf.space.high, np.float64) - np.asarray(leaf.space.low, np.float64)
            scale = np.where(np.isfinite(width) & (width > 0), width, 1)
            distances.append(
                (np.abs(one[name].astype(np.float64) - other[name].astype(np.float64)) / scale).reshape(rows, -1)
            )
        joined = np.concatenate(distances, axis=1)
        agrees &= (joined <= AGREES_WITHIN).all(axis=1)
        return ActionDifference(agrees, joined.mean(axis=1) if joined.shape[1] else np.zeros(rows))
