"""Polls the registry in a thread and replaces a replica's policy after a promotion, without delaying requests.

poll -> another version? -> fetch and verify -> trial in a child process -> load -> same spaces? -> replace
"""

import logging
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol

from serving.errors import ServingError
from serving.policy.errors import BundleError, BundleFileMissing
from serving.registry.errors import CacheUnwritable, RegistryError
from serving.registry.model_uri import ModelUri
from serving.registry.model_version import ModelVersion
from serving.replica.refresh_state import Refresh, RejectedVersion, now
from serving.replica.served_policy import ServedPolicy
from serving.rollout.admission import Admission

logger = logging.getLogger(__name__)

MAX_PAUSE_S = 30.0
"""The longest pause between two polls, or between two attempts to serve a version."""
TRANSIENT = (BundleFileMissing, CacheUnwritable)
"""Errors after which the same version is tried again: the artifact store may be down or the disk full."""


class Replica(Protocol):
    """The attributes of a replica that the watcher replaces, each as a whole."""

    served: ServedPolicy
    refresh: Refresh


class Watcher:
    """Keeps a replica's policy at the version that its model URI refers to."""

    def __init__(self, replica: Replica, admission: Admission) -> None:
        self._replica, self._admission, self._arguments = replica, admission, admission.arguments
        self._stopped = threading.Event()
        self._failed_polls = 0
        self._rejected: _Rejected | None = None

    def start(self) -> None:
        """Poll in a daemon thread. A pinned version is polled only until the registry has confirmed it."""
        threading.Thread(target=self._run, name="watcher", daemon=True).start()

    def stop(self) -> None:
        """Stop polling."""
        self._stopped.set()

    def poll(self) -> None:
        """Poll the registry once, and serve the version that it returns."""
        try:
            version = self._admission.registry.poll(self._arguments.model_uri)
        except ServingError as error:
            self._failed_polls += 1
            self._report_failed_poll(error)
            return
        self._failed_polls = 0
        served = self._replica.served
        if _identity(version) == _identity(served.version):
            self._confirm(served, version)
        elif self._rejected is None or not self._rejected.still_applies_to(version):
            self._replace(served, version)
        else:
            self._update(last=now())

    def pause_s(self) -> float:
        """Return the seconds until the next poll: jittered, and doubled with each failed poll."""
        pause = min(self._arguments.refresh_interval_s * 2.0**self._failed_polls, MAX_PAUSE_S)
        return random.uniform(0.5 if self._failed_polls else 0.9, 1.0) * max(pause, self._arguments.refresh_interval_s)  # noqa: S311

    def _run(self) -> None:
        pinned = ModelUri.parse(self._arguments.model_uri).number is not None
        while not (pinned and not self._replica.refresh.degraded) and not self._stopped.wait(self.pause_s()):
            try:
                self.poll()
            except Exception:
                # Without this thread the replica would serve an old version and report nothing.
                logger.exception("polling %s failed", self._arguments.model_uri)

    def _confirm(self, served: ServedPolicy, version: ModelVersion) -> None:
        self._rejected = None
        if version != served.version:  # its tags or its stage have changed, which no answer depends on
            self._replica.served = ServedPolicy(served.policy, version, loaded_at=served.loaded_at.timestamp())
        self._update(last=now(), error=None, rejected=None, degraded=False)

    def _replace(self, served: ServedPolicy, version: ModelVersion) -> None:
        try:
            # Requests in progress keep a reference to the old policy.
            self._replica.served = self._admission.admit(version, served)
        except (BundleError, RegistryError) as error:
            self._reject(version, error)
            return
        self._rejected = None
        swaps = self._replica.refresh.swaps + 1
        self._update(last=now(), error=None, rejected=None, degraded=False, swaps=swaps)
        logger.warning("%s: version %d replaces version %d", version.uri, version.version, served.version.version)

    def _reject(self, version: ModelVersion, error: BundleError | RegistryError) -> None:
        self._rejected = _Rejected.after(self._rejected, version, error, self._arguments.refresh_interval_s)
        before, rejected = self._replica.refresh, RejectedVersion.of(version, error)
        self._update(
            last=now(),
            error=f"version {version.version}: {error}",
            rejected=rejected,
            rejections={**before.rejections, rejected.code: before.rejections.get(rejected.code, 0) + 1},
        )
        if before.rejected is None or replace(before.rejected, at=rejected.at) != rejected:
            serving = self._replica.served.version.version
            message = "%s: version %d is rejected, version %d stays in service: %s"
            logger.error(message, version.uri, version.version, serving, error)

    def _report_failed_poll(self, error: ServingError) -> None:
        if self._replica.refresh.error != str(error):
            served = self._replica.served.version.version
            message = "polling %s failed, version %d stays in service: %s"
            logger.warning(message, self._arguments.model_uri, served, error)
        self._update(error=str(error))

    def _update(self, **changes: Any) -> None:
        self._replica.refresh = replace(self._replica.refresh, **changes)


@dataclass(frozen=True)
class _Rejected:
    """A version that is not tried again before its tags change or its next attempt is due."""

    identity: tuple[int, Mapping[str, str]]
    attempts: int
    retry_at: float | None
    """The `monotonic` time of the next attempt, None if there is none."""

    @classmethod
    def after(
        cls, before: "_Rejected | None", version: ModelVersion, error: ServingError, interval_s: float
    ) -> "_Rejected":
        """Return the state after an attempt to serve `version` failed with `error`."""
        identity = version.version, version.tags
        attempts = before.attempts + 1 if before is not None and before.identity == identity else 1
        pause = min(interval_s * 2.0**attempts, MAX_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311
        return cls(identity, attempts, monotonic() + pause if isinstance(error, TRANSIENT) else None)

    def still_applies_to(self, version: ModelVersion) -> bool:
        """Return whether `version` is this one and not to be tried now."""
        is_this = self.identity == (version.version, version.tags)
        return is_this and (self.retry_at is None or monotonic() < self.retry_at)


def _identity(version: ModelVersion) -> tuple[int, Mapping[str, str]]:
    return version.version, version.digests
