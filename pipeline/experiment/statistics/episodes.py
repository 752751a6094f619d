"""The episodes that an experiment counts, as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.experiment.errors import EpisodeInvalid


@dataclass(frozen=True)
class Episodes:
    """The n settled episodes of an experiment, in the order of their assignment. All arrays have shape (n,).

    Raises:
        EpisodeInvalid: A return is not finite, or a share is not between 0 and 1 (exclusive): without chance in the
            assignment, an episode says nothing about the difference of the arms.
    """

    challenger: NDArray[np.bool_]
    """Whether the episode was assigned to the challenger."""
    share: NDArray[np.float64]
    """The probability of that. It was known before the episode began."""
    returns: NDArray[np.float64]
    """The reported return, or the default return."""
    reported: NDArray[np.bool_]
    """Whether the client reported the return in time."""

    def __post_init__(self) -> None:
        for index in np.flatnonzero(~((self.share > 0) & (self.share < 1)))[:1]:
            raise EpisodeInvalid(int(index), f"its share is {self.share[index]:g}, expected one between 0 and 1")
        for index in np.flatnonzero(~np.isfinite(self.returns))[:1]:
            raise EpisodeInvalid(int(index), f"its return is {self.returns[index]}, expected a finite number")

    def __len__(self) -> int:
        return len(self.returns)


@dataclass(frozen=True)
class Assignments:
    """All n episodes that an experiment has assigned, in any order, and what is known of them. Arrays of shape (n,)."""

    assigned_s: NDArray[np.float64]
    """When the episode was assigned, in seconds since any fixed time."""
    challenger: NDArray[np.bool_]
    share: NDArray[np.float64]
    reported_s: NDArray[np.float64]
    """When its return was reported, in seconds since the same time; infinite if it has not been."""
    returns: NDArray[np.float64]
    """Its return; any number if it has not been reported."""

    def settled(self, now_s: float, reward_wait_s: float, default_return: float) -> Episodes:
        """Return the episodes whose outcome is final: those that were assigned more than `reward_wait_s` seconds ago.

        Short episodes report first, so the episodes that have reported by now differ from all episodes. That an episode
        counts depends on the time of its assignment only, and so does its place in the order. An episode that has not
        been reported `reward_wait_s` after its assignment has the default return, whatever is reported later: its
        outcome does not change between two looks.
        """
        counted = np.flatnonzero(self.assigned_s < now_s - reward_wait_s)
        counted = counted[np.argsort(self.assigned_s[counted], kind="stable")]
        reported = self.reported_s[counted] <= self.assigned_s[counted] + reward_wait_s
        returns = np.where(reported, self.returns[counted], default_return)
        return Episodes(self.challenger[counted], self.share[counted], returns, reported)
