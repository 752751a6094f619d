"""Recorded episodes as arrays, one row per step."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NOTHING = -1
"""Stands for the state after a terminal step."""
UNKNOWN = -2
"""Stands for the state after a last step that nobody reported."""


@dataclass(frozen=True)
class Logs:
    """Whole episodes, ordered by episode and step.

    A state is an observation of a policy: `states` has those of all steps in their order, then the final observations
    that clients reported.
    """

    states: tuple[NDArray[Any], ...]
    """`[states, *shape]` for each array of the observation."""
    actions: Floats
    """`[steps, columns]`, coded as `distributions` describes."""
    rewards: Floats
    """`[steps]`."""
    inputs: Floats
    """`[steps, n]`: the inputs of the distribution of the version that decided."""
    next_state: Ints
    """`[steps]`: the place of the next state in `states`, NOTHING or UNKNOWN."""
    lengths: Ints
    """`[episodes]`: their steps, each at least one."""
    explored: Bools
    """`[episodes]`: whether the actions were sampled; else they were greedy."""
    versions: Ints
    """`[episodes]`: which version decided."""

    @property
    def episodes(self) -> int:
        """The number of episodes."""
        return len(self.lengths)

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.rewards)

    @property
    def horizon(self) -> int:
        """The length of the longest episode."""
        return int(self.lengths.max())

    @cached_property
    def starts(self) -> Ints:
        """`[episodes]`: their first steps."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def episode(self) -> Ints:
        """`[steps]`: the place of the episode."""
        return np.repeat(np.arange(self.episodes), self.lengths)

    @cached_property
    def t(self) -> Ints:
        """`[steps]`: the step in its episode, from 0."""
        return np.arange(self.steps) - self.starts[self.episode]

    def of(self, episodes: Bools) -> "Logs":
        """Return the logs of some of the episodes. The states stay, those of the steps in another order."""
        rows = np.flatnonzero(episodes[self.episode])
        place = np.full(len(self.states[0]), UNKNOWN)
        finals = np.unique(self.next_state[rows][self.next_state[rows] >= self.steps])
        kept = np.concatenate([rows, finals])
        place[kept] = np.arange(len(kept))
        followers = self.next_state[rows]
        return Logs(
            tuple(each[kept] for each in self.states),
            self.actions[rows],
            self.rewards[rows],
            self.inputs[rows],
            np.where(followers >= 0, place[followers], followers),
            self.lengths[episodes],
            self.explored[episodes],
            self.versions[episodes],
        )

    def cumulative(self, values: Floats) -> Floats:
        """Return the sums of values `[steps]` from the first step of each episode to each of its steps."""
        sums = np.cumsum(values)
        result: Floats = sums - (sums - values)[self.starts][self.episode]
        return result

    def before(self, values: NDArray[Any], first: Any) -> NDArray[Any]:
        """Return the values `[steps]` of the step before; `first` at the first steps."""
        shifted = np.roll(values, 1, axis=0)
        shifted[self.starts] = first
        return shifted

    def returns_to_go(self, gamma: float) -> Floats:
        """Return the discounted sum of the rewards from each step to the end of its episode, `[steps]`."""
        found = self.rewards.copy()
        for t in range(self.horizon - 2, -1, -1):
            rows = self.starts[self.lengths > t + 1] + t
            found[rows] += gamma * found[rows + 1]
        return found
