"""Chooses the version that answers a request while a challenger answers a share of the episodes."""

import copy
import time
from collections.abc import Callable
from typing import NamedTuple

from serving.experience.episodes import Arm, EpisodeHasher, Origin
from serving.experience.journal.records import experiment_payload
from serving.experiments.assignment import CHALLENGER, CHAMPION
from serving.experiments.experiment import Experiment
from serving.policy.tensors import Batch
from serving.replica.arms.counts import ArmCounts
from serving.replica.served_policy import ServedPolicy


class Challenge(NamedTuple):
    """The challenger of a running experiment, which a replica has loaded."""

    experiment: Experiment
    served: ServedPolicy


class Arms:
    """The two versions of a running experiment, and the choice between them.

    Which arm an episode is in follows from the experiment and the episode's hash, so all replicas agree. Each arm has a
    copy of its policy, whose `act` records the arm and counts the request: requests outside of it cost nothing more.

    Args:
        challenge: the experiment and the challenger, which is ready to serve.
        champion: the version that answers without an experiment.
        hashed: turns the names of episodes into the hashes that arms are drawn from.
        counts: receives the requests of the arms.
    """

    def __init__(self, challenge: Challenge, champion: ServedPolicy, hashed: EpisodeHasher, counts: ArmCounts) -> None:
        self.experiment, self.challenger = challenge
        self.counts = counts
        self._hashed = hashed
        record = experiment_payload(self.experiment)
        champions, challengers = Arm(CHAMPION, record), Arm(CHALLENGER, record)
        self.challenger.fallback = champion
        assigned = _in_arm(self.challenger, challengers, self._count)
        assigned.fallback = _in_arm(champion, challengers, self._count_failure)
        self._by_arm = {CHAMPION: _in_arm(champion, champions, self._count), CHALLENGER: assigned}

    def choose(self, served: ServedPolicy, episode: str | None, *, pinned: bool) -> ServedPolicy:
        """Return the policy that answers a request.

        Args:
            served: the policy that the request's pin names; the champion without one.
            episode: the name of the request's episode, None if it names none or several.
            pinned: whether the request has a valid pin, which is preferred to the arm.

        Returns:
            `served` itself if the request is not part of the experiment: it has no episode, the experiment has not
            begun or has ended, or the pin contradicts the arm, as that of an episode from before the experiment.
        """
        arm = None if episode is None else self.experiment.arm(self._hashed(episode), time.time())
        if arm is None:
            return served
        assigned = self._by_arm[arm]
        return served if pinned and served.version.version != assigned.version.version else assigned

    def answers(self, version: int) -> bool:
        """Return whether a pin on this version is answered by the challenger: it has the number, and the time."""
        return version == self.challenger.version.version and self.experiment.is_running_at(time.time())

    def _count(self, arm: Arm) -> None:
        self.counts.answered[arm.name] += 1

    def _count_failure(self, arm: Arm) -> None:
        self.counts.failed += 1
        self._count(arm)


def _in_arm(served: ServedPolicy, arm: Arm, count: Callable[[Arm], None]) -> ServedPolicy:
    """Return the policy for the requests of an arm. It shares the batcher and what protocols prepared."""
    act = served.act

    async def act_in_arm(observations: Batch, origin: Origin | None = None) -> Batch:
        actions = await act(observations, None if origin is None else origin._replace(arm=arm))
        count(arm)
        return actions

    copied = copy.copy(served)
    copied.act, copied.fallback = act_in_arm, None  # that of the policy itself may change
    return copied
