"""Loads the challenger of a champion's running experiment into a replica, and releases it when the experiment ends.

The watcher calls it after each poll, so nothing here delays a request. What decides is the tag of the champion and the
clock of the replica: an experiment also ends in time while the registry does not answer.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Protocol

from serving.errors import ServingError
from serving.experiments.experiment import Experiment
from serving.policy.tensors import Tensors
from serving.registry.model_version import ModelVersion
from serving.replica.arms.arms import Challenge
from serving.replica.refresh_state import Refresh, RejectedVersion
from serving.replica.served_policy import ServedPolicy
from serving.rollout.candidate_admission import Admission
from serving.rollout.errors import TRANSIENT
from serving.rollout.refusals import Refusal

logger = logging.getLogger(__name__)

MAX_PAUSE_S = 30.0
"""The longest pause between two attempts to load a challenger."""
MAX_DOUBLINGS = 10
"""More of them than MAX_PAUSE_S needs."""


class Replica(Protocol):
    """The attributes of a replica that are read and replaced here, each as a whole."""

    served: ServedPolicy
    challenge: Challenge | None
    refresh: Refresh


class Challengers:
    """Keeps a replica's challenger at what the champion's tag says.

    Args:
        replica: the replica.
        admission: fetches, tests and loads versions.
        live: returns recent observations, on which a challenger is tried; None if there are none.
    """

    def __init__(self, replica: Replica, admission: Admission, live: Callable[[], Tensors | None]) -> None:
        self._replica, self._admission, self._live = replica, admission, live
        self._refused = admission.refusals.of
        self._rejected: tuple[ModelVersion, RejectedVersion] | None = None
        """The last challenger that could not be loaded, and why."""
        self._attempts, self._retry_at = 0, math.inf
        self._taken_back: Refusal | None = None
        """The last refusal of a challenger that was counted and logged."""

    def update(self, wanted: ModelVersion | None) -> None:
        """Load, keep or release the challenger.

        Args:
            wanted: the version that the registry names as the champion: the last known one while the registry does not
                answer, None if it names none.
        """
        champion = self._replica.served.version
        found = None if wanted is None or wanted.version != champion.version else running(champion)
        if found is None:
            self._release()
            self._rejected = None
            return
        experiment, challenger = found
        refusal = self._refused(challenger)
        if refusal is not None:
            self._take_back(refusal)
        elif self._rejected is None or self._rejected[0] != challenger or monotonic() >= self._retry_at:
            self._keep(experiment, challenger)
        else:
            self._show(self._rejected[1])

    def look(self) -> None:
        """Release the challenger, without waiting for the next poll, if a replica of the application has refused it."""
        current = self._replica.challenge
        if current is not None and (refusal := self._refused(current.served.version)) is not None:
            self._take_back(refusal)

    def _take_back(self, refusal: Refusal) -> None:
        """Release the challenger if it is loaded, and show that it is refused; count and log it the first time."""
        self._replica.challenge = None
        reason, before = refusal.describe(self._replica.served.version.version), self._replica.refresh
        if refusal != self._taken_back:
            self._taken_back = refusal
            logger.error("the challenger, %s", reason)
            before = replace(before, rejections=_counted(before, refusal.code))
        self._replica.refresh = replace(before, rejected=refusal.rejected, error=reason)

    def _keep(self, experiment: Experiment, challenger: ModelVersion) -> None:
        """Go on with the challenger that is loaded, or load it."""
        current = self._replica.challenge
        if current is None or not _is_same(current.served.version, challenger):
            self._load(experiment, challenger)
        elif current.experiment != experiment:
            self._replica.challenge = Challenge(experiment, current.served)

    def _load(self, experiment: Experiment, challenger: ModelVersion) -> None:
        self._release()
        try:
            served = self._admission.admit_challenger(challenger, self._replica.served, self._live())
            self._replica.challenge = Challenge(experiment, served)
        except Exception as error:  # noqa: BLE001 - beside its own errors, such as those of a machine without memory
            self._reject(challenger, error)
            return
        self._rejected = None
        logger.warning("%s", describe(experiment))

    def _release(self) -> None:
        current = self._replica.challenge
        if current is not None:
            self._replica.challenge = None
            logger.warning(
                "experiment %s has ended here, version %d is released",
                current.experiment.id,
                current.served.version.version,
            )

    def _reject(self, challenger: ModelVersion, error: Exception) -> None:
        """Show why the challenger is not loaded. It is tried again when its tags change, or later if that may help."""
        rejected, before = RejectedVersion.of(challenger, error), self._rejected
        self._attempts = self._attempts + 1 if before is not None and before[0] == challenger else 1
        final = isinstance(error, ServingError) and not isinstance(error, TRANSIENT)
        pause_s = min(2.0 ** min(self._attempts, MAX_DOUBLINGS), MAX_PAUSE_S)
        self._rejected, self._retry_at = (challenger, rejected), math.inf if final else monotonic() + pause_s
        if before is None or replace(before[1], at=rejected.at) != rejected:
            refresh = self._replica.refresh
            self._replica.refresh = replace(refresh, rejections=_counted(refresh, rejected.code))
            unexpected = None if isinstance(error, ServingError) else error
            message = "the challenger, version %d, is rejected and gets no episode: %s"
            logger.error(message, challenger.version, error, exc_info=unexpected)
        self._show(rejected)

    def _show(self, rejected: RejectedVersion) -> None:
        self._replica.refresh = replace(self._replica.refresh, rejected=rejected, error=rejected.describe())


def _counted(refresh: Refresh, code: str) -> dict[str, int]:
    """Return the rejections with one more of a code."""
    return {**refresh.rejections, code: refresh.rejections.get(code, 0) + 1}


def running(champion: ModelVersion) -> tuple[Experiment, ModelVersion] | None:
    """Return the experiment that a champion's tag describes, with the challenger; None if none runs now."""
    experiment, challenger = champion.experiment, champion.challenger
    if experiment is None or challenger is None or challenger.version != experiment.challenger:
        return None
    return (experiment, challenger) if experiment.is_running_at(time.time()) else None


def first_challenge(
    admission: Admission, champion: ServedPolicy, wanted: ModelVersion | None = None
) -> Challenge | None:
    """Return the challenger for a replica that starts, before it receives requests; None if there is none.

    One that cannot be loaded is tried again, and shown, by `Challengers`. If the registry names another version,
    `wanted`, than the champion, the experiment of the champion has ended.
    """
    found = running(champion.version)
    if wanted is not None and wanted.version != champion.version.version:
        return None
    if found is None or admission.refusals.of(found[1]) is not None:
        return None
    experiment, challenger = found
    try:
        return Challenge(experiment, admission.admit_challenger(challenger, champion))
    except Exception as error:  # noqa: BLE001 - the champion can be served without it
        logger.warning("the challenger, version %d, cannot be loaded yet: %s", challenger.version, error)
        return None


def describe(experiment: Experiment) -> str:
    """Return what an experiment does, for the log."""
    steps = ", ".join(
        f"{step.share:.3g} from {time.strftime('%H:%M:%S', time.gmtime(step.start_s))}Z" for step in experiment.shares
    )
    return f"experiment {experiment.id}: version {experiment.challenger} gets a share of the episodes, {steps}"


def _is_same(loaded: ModelVersion, challenger: ModelVersion) -> bool:
    return (loaded.version, loaded.digests) == (challenger.version, challenger.digests)
