"""How much the action distributions of two policies differ: the total variation.

The total variation is the largest difference of the probabilities that the two policies give to any set of actions: 0
if they are equal, 1 if they have no action in common.

| distribution | total variation |
| --- | --- |
| one choice (Discrete) | half of the sum of the differences of the probabilities: exact |
| diagonal Gaussian | the bound sqrt(1 - B**2), B the Bhattacharyya coefficient in closed form (Le Cam 1973) |
| several independent parts | the bound 1 - product of (1 - total variation of each part) |

A bound is never below the total variation: if it is small, the policies are close.
"""

import math
from dataclasses import dataclass

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from serving.policy.spaces import LeafSpace, integer_range, leaves


@dataclass(frozen=True)
class _Part:
    """Consecutive inputs of the distribution: the logits of one choice, or the means and log deviations of a Box."""

    size: int
    is_choice: bool


class TotalVariation:
    """Computes the total variation of action distributions in one space."""

    def __init__(self, action_space: Space[object]) -> None:
        self._parts = [part for leaf in leaves(action_space) for part in _parts(leaf.space)]
        self.is_exact = len(self._parts) == 1 and self._parts[0].is_choice
        """Whether the result is the total variation itself and not a bound of it."""
        self.size = sum(part.size for part in self._parts)
        """The number of inputs of a distribution."""

    def __call__(self, one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the total variation of each row, NaN where an input is; inputs `[rows, size]`."""
        equal = np.ones(len(one))
        start = 0
        for part in self._parts:
            columns = slice(start, start + part.size)
            variation = _of_choices if part.is_choice else _of_gaussians
            equal *= 1 - variation(*(each[:, columns].astype(np.float64) for each in (one, other)))
            start += part.size
        return 1 - equal


def is_choice(space: LeafSpace) -> bool:
    """Return whether the elements of an array of actions are chosen from finitely many values."""
    return not isinstance(space, spaces.Box) or np.dtype(space.dtype).kind in "biu"


def _parts(space: LeafSpace) -> list[_Part]:
    if not is_choice(space):
        return [_Part(2 * math.prod(space.shape or ()), is_choice=False)]
    low, high = integer_range(space) or (space.low, space.high)  # type: ignore[union-attr]
    counts = np.asarray(high).astype(object) - np.asarray(low).astype(object) + 1
    return [_Part(int(count), is_choice=True) for count in np.asarray(counts, object).reshape(-1)]


def _of_choices(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    variation: NDArray[np.float64] = np.abs(_probabilities(one) - _probabilities(other)).sum(axis=1) / 2
    return variation


def _probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the softmax. A logit may be minus infinity, which masks an action."""
    with np.errstate(invalid="ignore"):
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return exponents / exponents.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def _of_gaussians(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    (mean, log_std), (other_mean, other_log_std) = (np.split(each, 2, axis=1) for each in (one, other))
    log_ratio = log_std - other_log_std
    log_cosh = np.logaddexp(log_ratio, -log_ratio) - math.log(2)  # of 1 / cosh(log r) = 2 s1 s2 / (s1**2 + s2**2)
    half_log_sum = np.logaddexp(2 * log_std, 2 * other_log_std) / 2
    distance = np.square((mean - other_mean) * np.exp(-half_log_sum))
    log_coefficient = (-0.5 * log_cosh - distance / 4).sum(axis=1)
    return np.sqrt(-np.expm1(2 * log_coefficient))  # type: ignore[no-any-return]
