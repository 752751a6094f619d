"""Compares the actions that were served with those that the bundle computes again.

A batch of another size changes the last digits of a result, so numbers are equal within a tolerance. A choice that
differs is the same decision if the two best values lay within that tolerance.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from serving.policy.bundle import Interface
from serving.policy.spaces import Leaf, LeafSpace, integer_range, leaves
from serving.policy.tensors import ACTION, Tensors

RTOL, ATOL = 1e-4, 1e-5
"""The relative and the absolute tolerance. The absolute one is of the range of an action with two bounds."""


class Agreement(NamedTuple):
    """The comparison of each row."""

    same: NDArray[np.bool_]
    """Whether the served action is the one that the bundle computes."""
    identical: NDArray[np.bool_]
    """Whether, moreover, no choice differs. If one does, the log-probability is that of another action."""


@dataclass(frozen=True)
class _Choices:
    """Where the values that a leaf's choices maximize stand among the distribution's inputs and in the noise."""

    sizes: tuple[int, ...]
    inputs: int
    noise: int

    def are_near_ties(
        self, chosen: NDArray[Any], inputs: NDArray[Any], noise: NDArray[Any] | None
    ) -> NDArray[np.bool_]:
        """Return whether each row's chosen indices `[rows, choices]` have the largest values, almost."""
        near = np.ones(len(chosen), np.bool_)
        start = 0
        for choice, size in enumerate(self.sizes):
            values = inputs[:, self.inputs + start : self.inputs + start + size].astype(np.float64)
            if noise is not None:
                values = values + noise[:, self.noise + start : self.noise + start + size]
            index, best = chosen[:, choice], values.max(axis=1)
            valid = (index >= 0) & (index < size)
            value = np.take_along_axis(values, np.where(valid, index, 0)[:, None], axis=1)[:, 0]
            near &= valid & (best - value <= ATOL + RTOL * np.abs(best))
            start += size
        return near


class ActionComparison:
    """Compares actions of one policy, leaf by leaf."""

    def __init__(self, interface: Interface) -> None:
        self._leaves = leaves(interface.action_space)
        self._layout = _layout(self._leaves)
        self._inputs_size = sum(_inputs_size(leaf.space) for leaf in self._leaves)

    def __call__(
        self, served: Tensors, computed: Tensors, inputs: NDArray[Any] | None, noise: NDArray[Any] | None
    ) -> Agreement:
        """Compare the actions of a batch.

        Args:
            served: the recorded actions by the names of the graph's outputs, `[batch, *shape]`.
            computed: the same as the bundle computes them.
            inputs: the distribution's inputs, `[batch, n]`, None if the graph does not return them.
            noise: the noise, `[batch, size]`, None if all actions are greedy.
        """
        rows = len(next(iter(served.values())))
        same, identical = np.ones(rows, np.bool_), np.ones(rows, np.bool_)
        # Policies whose layout is another one have no near ties that could be seen.
        is_known = inputs is not None and inputs.ndim == 2 and inputs.shape[1] == self._inputs_size  # noqa: PLR2004
        for leaf, choices in zip(self._leaves, self._layout, strict=True):
            name = leaf.tensor(ACTION)
            equal = _equal(served[name], computed[name], leaf.space)
            if choices is not None:
                identical &= equal
                other = np.flatnonzero(~equal)
                if is_known and len(other):
                    assert inputs is not None  # noqa: S101 - for mypy
                    chosen = _indices(served[name][other], leaf.space)
                    drawn = noise if noise is None else noise[other]
                    equal[other] = choices.are_near_ties(chosen, inputs[other], drawn)
            same &= equal
        return Agreement(same, identical & same)


def _equal(served: NDArray[Any], computed: NDArray[Any], space: LeafSpace) -> NDArray[np.bool_]:
    if _is_choice(space):
        equal = served == computed
    else:
        low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)  # type: ignore[union-attr]
        width = high - low
        scale = np.where(np.isfinite(width), np.maximum(width, 1), 1)
        equal = np.isclose(served, computed, rtol=RTOL, atol=ATOL * scale, equal_nan=True)
    return equal.reshape(len(equal), -1).all(axis=1)  # type: ignore[no-any-return]


def _is_choice(space: LeafSpace) -> bool:
    return not isinstance(space, spaces.Box) or np.dtype(space.dtype).kind in "biu"


def _choice_sizes(space: LeafSpace) -> tuple[int, ...]:
    if (bounds := integer_range(space)) is not None:
        low, high = bounds
    else:
        low, high = space.low, space.high  # type: ignore[union-attr]
    counts = np.asarray(high).astype(object) - np.asarray(low).astype(object) + 1
    return tuple(int(count) for count in np.asarray(counts, object).reshape(-1))


def _inputs_size(space: LeafSpace) -> int:
    return sum(_choice_sizes(space)) if _is_choice(space) else 2 * math.prod(space.shape or ())


def _noise_size(space: LeafSpace) -> int:
    return sum(_choice_sizes(space)) if _is_choice(space) else math.prod(space.shape or ())


def _layout(found: tuple[Leaf, ...]) -> list[_Choices | None]:
    """Return the place of each leaf's choices; None for a leaf of numbers."""
    inputs = noise = 0
    layout: list[_Choices | None] = []
    for leaf in found:
        layout.append(_Choices(_choice_sizes(leaf.space), inputs, noise) if _is_choice(leaf.space) else None)
        inputs += _inputs_size(leaf.space)
        noise += _noise_size(leaf.space)
    return layout


def _indices(actions: NDArray[Any], space: LeafSpace) -> NDArray[Any]:
    """Return the index of each choice, `[rows, choices]`, of actions `[rows, *shape]`."""
    bounds = integer_range(space)
    low = np.asarray(bounds[0] if bounds is not None else space.low)  # type: ignore[union-attr]
    return (actions.astype(np.int64) - low.astype(np.int64)).reshape(len(actions), -1)
