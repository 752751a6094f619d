"""Takes back a version that failed in service: the replica returns to the version before, and says so."""

import logging
from dataclasses import replace
from typing import Protocol

from serving.registry.model_version import ModelVersion
from serving.replica.arms.arms import Challenge
from serving.replica.refresh_state import Refresh
from serving.replica.served_policy import ServedPolicy
from serving.rollout.candidate_admission import Admission
from serving.rollout.refusals import Refusal

logger = logging.getLogger(__name__)


class Replica(Protocol):
    """The attributes of a replica that the watcher replaces, each as a whole."""

    served: ServedPolicy
    challenge: Challenge | None
    refresh: Refresh

    def fall_back_on(self, served: ServedPolicy, fallback: ServedPolicy) -> None:
        """Let `fallback` answer the requests that `served` fails to answer."""


class Withdrawal:
    """Keeps a replica from serving a refused version. One thread, the watcher's, uses it."""

    def __init__(self, replica: Replica, admission: Admission) -> None:
        self._replica, self._admission, self._refusals = replica, admission, admission.refusals
        self.wanted: ModelVersion | None = None
        """The version that the registry names; None until a poll has returned it."""
        self.serving = replica.served.version.version
        """The number of the version that was served when this was last looked at."""
        rejected = replica.refresh.rejected
        self._reported = None if rejected is None else (rejected.version, rejected.at)
        self._irreplaceable: str | None = None
        """The key of the refusal after which no other version could be served."""
        self._sought: int | None = None
        """The number of the last version for which a fallback was sought."""

    def look(self) -> None:
        """Take back the served version if a replica of this application has refused it."""
        self._admission.crashes.collect()
        served = self._replica.served
        if (refusal := self._refusals.of(served.version)) is not None and refusal.key != self._irreplaceable:
            self._return_to_fallback(served, refusal)
        wanted = self.wanted or served.version
        if (refusal := self._refusals.of(wanted)) is not None and self._reported != (refusal.version, refusal.at):
            self.report(wanted, refusal)

    def refused(self, version: ModelVersion) -> bool:
        """Return whether the version that the registry names is refused. If it is, it is not served, if possible."""
        self.wanted = version
        self.look()
        refusal = self._refusals.of(version)
        if refusal is None:
            self._reported = None
            return False
        self._replica.refresh = replace(self._replica.refresh, degraded=False)
        self.report(version, refusal)
        return True

    def report(self, version: ModelVersion, refusal: Refusal) -> None:
        """Show in the state of the replica that a version is refused; count and log it the first time."""
        serving, before = self._replica.served.version, self._replica.refresh
        reason = refusal.describe(serving.version)
        self._replica.refresh = before = replace(before, error=reason, rejected=refusal.rejected)
        if self._reported == (refusal.version, refusal.at):
            return
        self._reported = refusal.version, refusal.at
        count = before.rejections.get(refusal.code, 0) + 1
        swaps = before.swaps + (serving.version != self.serving)
        rejections = {**before.rejections, refusal.code: count}
        self._replica.refresh = replace(before, rejections=rejections, swaps=swaps)
        self.serving = serving.version
        logger.error("%s: %s", version.uri, reason)
        self._admission.record(serving)

    def keep_fallback(self) -> None:
        """Load the version before the served one, if it is not loaded: it answers when the served one fails."""
        served = self._replica.served
        if served.fallback is not None and self._refusals.of(served.fallback.version) is not None:
            served.fallback = self._sought = None
        if served.fallback is None and self._sought != served.version.version:
            self._sought = served.version.version
            if (fallback := self._admission.fallback_of(served)) is not None:
                self._replica.fall_back_on(served, fallback)

    def _return_to_fallback(self, served: ServedPolicy, refusal: Refusal) -> None:
        fallback = served.fallback or self._admission.fallback_of(served)
        if fallback is None:
            self._irreplaceable = refusal.key
        elif self._replica.served is served:  # the application has not returned to it itself
            self._replica.served = fallback
