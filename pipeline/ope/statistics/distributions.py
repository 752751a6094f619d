"""The distribution of a policy's actions, from the inputs that its graph computes: probabilities, and actions to take.

Actions are coded as numbers, one column per choice or number of the action: a choice by its place among its values, a
Gaussian's number as the policy draws it, before the graph scales it to the action space. The graph clips numbers to the
bounds of the space. A number at a bound therefore has the probability of everything beyond it.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from pipeline.export.action_heads import choice_sizes, is_choice
from serving.policy.spaces import LeafSpace, leaves

Floats = NDArray[np.float64]

MOST_ENUMERATED = 64
"""The most actions that are enumerated; of more, some are drawn."""
DRAWN = 16
"""How many actions are drawn for an observation."""


@dataclass(frozen=True)
class Choice:
    """A choice between `size` values."""

    size: int

    numbers = 1

    @property
    def inputs(self) -> int:
        """The number of inputs, which are logits."""
        return self.size

    def log_prob(self, inputs: Floats, actions: Floats) -> Floats:
        """Return the log-probabilities of actions `[rows, 1]`, for inputs `[rows, size]`."""
        logits = inputs - inputs.max(axis=1, keepdims=True)
        logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        chosen: Floats = np.take_along_axis(logits, actions.astype(np.int64), axis=1)[:, 0]
        return chosen

    def greedy(self, inputs: Floats) -> Floats:
        """Return the most probable actions, `[rows, 1]`."""
        best: Floats = inputs.argmax(axis=1)[:, np.newaxis].astype(np.float64)
        return best

    def draw(self, inputs: Floats, generator: np.random.Generator) -> Floats:
        """Return sampled actions, `[rows, 1]`."""
        return self.greedy(inputs + generator.gumbel(size=inputs.shape))


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Independent normal numbers, which are clipped to `low` and `high`, each `[numbers]`."""

    low: Floats
    high: Floats

    @property
    def numbers(self) -> int:
        """How many numbers there are."""
        return len(self.low)

    @property
    def inputs(self) -> int:
        """The number of inputs: the means, then the logarithms of the standard deviations."""
        return 2 * self.numbers

    def log_prob(self, inputs: Floats, actions: Floats) -> Floats:
        """Return log-densities, with the probability of what is beyond a bound for each number at the bound."""
        from scipy.special import log_ndtr

        mean, log_std = np.split(inputs, 2, axis=1)
        z = (actions - mean) / np.exp(log_std)
        inside = -0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)
        logs = np.where(actions <= self.low, log_ndtr(z), np.where(actions >= self.high, log_ndtr(-z), inside))
        total: Floats = logs.sum(axis=1)
        return total

    def greedy(self, inputs: Floats) -> Floats:
        """Return the means, clipped."""
        return np.clip(np.split(inputs, 2, axis=1)[0], self.low, self.high)

    def draw(self, inputs: Floats, generator: np.random.Generator) -> Floats:
        """Return sampled actions, `[rows, numbers]`."""
        mean, log_std = np.split(inputs, 2, axis=1)
        return np.clip(mean + np.exp(log_std) * generator.standard_normal(mean.shape), self.low, self.high)


class ActionDistribution:
    """The distribution of the actions of a space."""

    def __init__(self, space: Space[Any]) -> None:
        self._leaves = [leaf.space for leaf in leaves(space)]
        self._parts = [part for leaf in self._leaves for part in _parts(leaf)]

    @property
    def is_discrete(self) -> bool:
        """Whether all actions have probabilities, and none a density."""
        return all(isinstance(part, Choice) for part in self._parts)

    @property
    def inputs(self) -> int:
        """The number of the distribution's inputs."""
        return sum(part.inputs for part in self._parts)

    @property
    def choice_sizes(self) -> list[int | None]:
        """The number of values of each column of coded actions, None for a Gaussian's number."""
        sizes: list[int | None] = []
        for part in self._parts:
            sizes += [part.size] if isinstance(part, Choice) else [None] * part.numbers
        return sizes

    def coded(self, actions: Sequence[NDArray[Any]]) -> Floats:
        """Return the coded actions `[rows, columns]` of those of the environment, `[rows, *shape]` per leaf."""
        return np.concatenate([_coded(*pair) for pair in zip(self._leaves, actions, strict=True)], axis=1)

    def log_prob(self, inputs: Floats, actions: Floats) -> Floats:
        """Return the log-probabilities, or log-densities, of coded actions, `[rows]`."""
        total = np.zeros(len(inputs))
        for part, given, taken in zip(self._parts, self._split(inputs), self._columns(actions), strict=True):
            total += part.log_prob(given, taken)
        return total

    def greedy(self, inputs: Floats) -> Floats:
        """Return the coded actions of highest probability, `[rows, columns]`."""
        parts = zip(self._parts, self._split(inputs), strict=True)
        return np.concatenate([part.greedy(given) for part, given in parts], axis=1)

    def candidates(self, inputs: Floats, generator: np.random.Generator) -> tuple[Floats, Floats]:
        """Return actions `[rows, k, columns]` and their weights `[rows, k]`, whose weighted mean is the policy's mean.

        These are all actions with their probabilities, or some that are drawn, where there are too many.
        """
        sizes = [size for size in self.choice_sizes if size is not None]
        if self.is_discrete and math.prod(sizes) <= MOST_ENUMERATED:
            every = np.array(list(itertools.product(*map(range, sizes))), np.float64)
            logs = [self.log_prob(inputs, np.broadcast_to(each, (len(inputs), len(sizes)))) for each in every]
            actions = np.broadcast_to(every, (len(inputs), *every.shape))
            return actions, np.exp(np.stack(logs, axis=1))
        repeated = np.repeat(inputs, DRAWN, axis=0)
        parts = zip(self._parts, self._split(repeated), strict=True)
        drawn = np.concatenate([part.draw(given, generator) for part, given in parts], axis=1)
        return drawn.reshape(len(inputs), DRAWN, -1), np.full((len(inputs), DRAWN), 1 / DRAWN)

    def _split(self, inputs: Floats) -> list[Floats]:
        return np.split(inputs, np.cumsum([part.inputs for part in self._parts])[:-1], axis=1)

    def _columns(self, actions: Floats) -> list[Floats]:
        return np.split(actions, np.cumsum([part.numbers for part in self._parts])[:-1], axis=1)


def _parts(space: LeafSpace) -> list[Choice | Gaussian]:
    if is_choice(space):
        return [Choice(size) for size in choice_sizes(space)]
    assert isinstance(space, spaces.Box)  # noqa: S101  # all other leaves are choices
    scaled = _scaled(space)
    low = np.where(scaled, -1.0, np.where(space.bounded_below, space.low, -np.inf))
    high = np.where(scaled, 1.0, np.where(space.bounded_above, space.high, np.inf))
    return [Gaussian(low.ravel(), high.ravel())]


def _scaled(space: spaces.Box) -> NDArray[np.bool_]:
    """Return which numbers of a Box the graph scales from [-1, 1]: those with two bounds."""
    both: NDArray[np.bool_] = space.bounded_below & space.bounded_above
    return both


def _coded(space: LeafSpace, actions: NDArray[Any]) -> Floats:
    """Return the actions of one leaf, `[rows, columns]`."""
    if not is_choice(space):
        assert isinstance(space, spaces.Box)  # noqa: S101  # all other leaves are choices
        scaled, low = _scaled(space), np.where(_scaled(space), space.low, 0).astype(np.float64)
        range_ = np.where(scaled, space.high, 1).astype(np.float64) - low
        numbers = np.where(scaled, 2 * (actions - low) / range_ - 1, actions)
        # The graph has float32; what it has clipped is exactly at the bound.
        numbers = np.where(
            scaled & (actions >= space.high), 1.0, np.where(scaled & (actions <= space.low), -1.0, numbers)
        )
    elif isinstance(space, spaces.MultiBinary):
        numbers = actions
    else:
        numbers = actions - (space.low if isinstance(space, spaces.Box) else space.start)
    return np.asarray(numbers, np.float64).reshape(len(actions), math.prod(space.shape or ()))
