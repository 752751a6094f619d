"""Features of pairs of a state and an action, in which fitted Q evaluation is linear."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ope.statistics.logs import NOTHING, Floats, Ints, Logs
from pipeline.ope.statistics.weights import TargetActions

MOST_PAIRS = 20_000
"""The most pairs of a state and an action that have an indicator each."""
_FOURIER = 256
_MOST_ROWS = 20_000
"""The most steps that a model in Fourier features is fitted to."""
_CHUNK = 4096
_RIDGE, _RIDGE_OF_PAIRS = 0.1, 0.01
_CHOICE_SCALE = 2.0
"""How far apart two choices are, in standard deviations of the observations: far enough to have values of their own."""


@dataclass(frozen=True)
class Regression:
    """A weighted ridge regression.

    Attributes:
        rewards: `[rows]`.
        next_state: `[rows]`, as in the logs.
        counts: `[rows]`: how many steps a row stands for.
        following: The matrix `[rows, size]` whose product with parameters is the target's value of the next states.
        solve: The function that returns the parameters for values `[rows]`.
    """

    rewards: Floats
    next_state: Ints
    counts: Floats
    following: Any
    solve: Callable[[Floats], Floats]


class Features(ABC):
    """Features of states and actions."""

    size: int

    @abstractmethod
    def regression(self, logs: Logs, target: TargetActions, rows: Ints, generator: np.random.Generator) -> Regression:
        """Return the regression on some steps."""

    @abstractmethod
    def apply(self, logs: Logs, states: Ints, actions: Floats, thetas: Floats, k: Ints) -> Floats:
        """Return the products of features and parameters, `[rows, n]`.

        Args:
            logs: The logs with the states.
            states: `[rows]` places of states.
            actions: `[rows, n, columns]`.
            thetas: `[iterations, size]`.
            k: `[rows]` which of the parameters.
        """


def features_of(logs: Logs, choice_sizes: list[int | None], generator: np.random.Generator) -> Features:
    """Return indicators if the pairs of states and actions are few, else random Fourier features."""
    (first, *others), sizes = logs.states, [size for size in choice_sizes if size is not None]
    if not others and first.ndim == 1 and first.dtype.kind in "iu" and len(sizes) == len(choice_sizes):
        names, places = np.unique(first, return_inverse=True)
        if len(names) * math.prod(sizes) <= MOST_PAIRS:
            return Indicators(places, len(names), sizes)
    return FourierFeatures(logs, choice_sizes, generator)


class Indicators(Features):
    """One feature for each pair of a state and an action."""

    def __init__(self, places: Ints, states: int, sizes: list[int]) -> None:
        self._places, self._actions = places, math.prod(sizes)
        self._strides = np.append(np.cumprod(sizes[::-1])[-2::-1], 1)
        self.size = states * self._actions

    def regression(self, logs: Logs, target: TargetActions, rows: Ints, generator: np.random.Generator) -> Regression:
        """Return the regression. Equal transitions are one row."""
        del generator
        pair, after = self._pair(rows, logs.actions[rows]), logs.next_state[rows]
        place = np.where(after == NOTHING, -1, self._places[after])
        _, index, inverse, counts = np.unique(
            pair * (len(self._places) + 1) + place, return_index=True, return_inverse=True, return_counts=True
        )
        rewards = np.bincount(inverse, logs.rewards[rows], minlength=len(counts)) / counts
        pair, after = pair[index], after[index]
        totals = np.bincount(pair, counts, minlength=self.size) + _RIDGE_OF_PAIRS

        def solve(goal: Floats) -> Floats:
            found: Floats = np.bincount(pair, counts * goal, minlength=self.size) / totals
            return found

        state = np.maximum(after, 0)
        following = self._matrix(state, target.actions[state], target.weights[state])
        return Regression(rewards, after, counts.astype(np.float64), following, solve)

    def apply(self, logs: Logs, states: Ints, actions: Floats, thetas: Floats, k: Ints) -> Floats:
        """Return the parameters of pairs."""
        del logs
        return np.stack([thetas[k, self._pair(states, actions[:, n])] for n in range(actions.shape[1])], axis=1)

    def _pair(self, states: Ints, actions: Floats) -> Ints:
        pairs: Ints = self._places[states] * self._actions + actions.astype(np.int64) @ self._strides
        return pairs

    def _matrix(self, states: Ints, actions: Floats, weights: Floats) -> Any:
        from scipy.sparse import csr_array

        columns = np.stack([self._pair(states, actions[:, n]) for n in range(actions.shape[1])], axis=1)
        ends = np.arange(len(states) + 1) * columns.shape[1]
        return csr_array((weights.ravel(), columns.ravel(), ends), shape=(len(states), self.size))


class FourierFeatures(Features):
    """Random Fourier features of standardized observations and actions, which approximate a Gaussian kernel."""

    def __init__(self, logs: Logs, choice_sizes: list[int | None], generator: np.random.Generator) -> None:
        self._choice_sizes = choice_sizes
        sample = self._observed(logs.states, np.arange(min(logs.steps, _MOST_ROWS)))
        numbers = logs.actions[: len(sample)]
        self._mean, self._std = sample.mean(axis=0), sample.std(axis=0) + 1e-6
        self._action_mean, self._action_std = numbers.mean(axis=0), numbers.std(axis=0) + 1e-6
        columns = sum(size or 1 for size in choice_sizes)
        self.size = _FOURIER
        # The distance between two random points grows with the root of the dimensions.
        scale = 1 / math.sqrt(max(1, sample.shape[1]))
        self._of_states = (generator.standard_normal((sample.shape[1], self.size)) * scale).astype(np.float32)
        self._of_actions = generator.standard_normal((columns, self.size)).astype(np.float32)
        self._phase = generator.uniform(0, 2 * np.pi, self.size).astype(np.float32)

    def regression(self, logs: Logs, target: TargetActions, rows: Ints, generator: np.random.Generator) -> Regression:
        """Return the regression on the steps, or on some of them where they are many."""
        from scipy.linalg import cho_factor, cho_solve

        if len(rows) > _MOST_ROWS:
            rows = np.sort(generator.choice(rows, _MOST_ROWS, replace=False))
        design = self._mean_features(logs, rows, logs.actions[rows, np.newaxis], np.ones((len(rows), 1)))
        after = logs.next_state[rows]
        state = np.maximum(after, 0)
        following = self._mean_features(logs, state, target.actions[state], target.weights[state])
        factor = cho_factor(design.T @ design + _RIDGE * np.eye(self.size, dtype=np.float32))

        def solve(goal: Floats) -> Floats:
            found: Floats = cho_solve(factor, design.T @ goal.astype(np.float32))
            return found

        return Regression(logs.rewards[rows], after, np.ones(len(rows)), following, solve)

    def apply(self, logs: Logs, states: Ints, actions: Floats, thetas: Floats, k: Ints) -> Floats:
        """Return the products of features and parameters."""
        found = np.empty(actions.shape[:2])
        for at in range(0, len(states), _CHUNK):
            rows = slice(at, at + _CHUNK)
            parameters = thetas[k[rows]].astype(np.float32)
            for n, matrix in enumerate(self._features(logs, states[rows], actions[rows])):
                found[rows, n] = np.einsum("ij,ij->i", matrix, parameters)
        return found

    def _mean_features(self, logs: Logs, states: Ints, actions: Floats, weights: Floats) -> NDArray[np.float32]:
        """Return the weighted sums of features, `[rows, size]`, with weights `[rows, n]`."""
        mean = np.zeros((len(states), self.size), np.float32)
        for at in range(0, len(states), _CHUNK):
            rows = slice(at, at + _CHUNK)
            for n, matrix in enumerate(self._features(logs, states[rows], actions[rows])):
                mean[rows] += weights[rows, n : n + 1].astype(np.float32) * matrix
        return mean

    def _features(self, logs: Logs, states: Ints, actions: Floats) -> Iterator[NDArray[np.float32]]:
        """Yield the features `[rows, size]` of each of the actions `[rows, n, columns]`."""
        observed = (self._observed(logs.states, states) - self._mean) / self._std
        of_state = observed.astype(np.float32) @ self._of_states + self._phase
        for n in range(actions.shape[1]):
            yield np.cos(of_state + self._acted(actions[:, n]) @ self._of_actions) * math.sqrt(2 / self.size)

    @staticmethod
    def _observed(states: tuple[NDArray[Any], ...], places: Ints) -> Floats:
        return np.concatenate([each[places].reshape(len(places), -1).astype(np.float64) for each in states], axis=1)

    def _acted(self, actions: Floats) -> NDArray[np.float32]:
        """Return actions `[rows, columns]` as numbers: each choice as one number per value."""
        parts = []
        for column, size in enumerate(self._choice_sizes):
            if size is None:
                numbers = (actions[:, column] - self._action_mean[column]) / self._action_std[column]
                parts.append(numbers[:, np.newaxis])
            else:
                parts.append(_CHOICE_SCALE * (actions[:, column : column + 1] == np.arange(size)))
        return np.concatenate(parts, axis=1).astype(np.float32)
