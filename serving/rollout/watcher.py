"""Notices a promotion and swaps the policy, off the path of requests.

poll -> another version? -> fetch, verify -> try in a child process -> load -> same spaces? -> swap one reference
"""

import logging
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Protocol

from serving.errors import ServingError
from serving.registry.errors import BundleFileMissing, CacheUnwritable
from serving.registry.model_uri import Reference
from serving.registry.poller import Registry
from serving.registry.registry import ModelVersion
from serving.replica.refresh_state import Refresh, Refusal, now
from serving.replica.served_policy import ServedPolicy
from serving.rollout.admission import Admission, Settings

logger = logging.getLogger(__name__)

MAX_PAUSE_S = 30.0
"""However long the registry is down, it is asked this often."""
TRANSIENT = (BundleFileMissing, CacheUnwritable)
"""A store that is down looks like a file that is missing, and a full disk may be cleared: both are tried again."""


class Watched(Protocol):
    """What is watched over: two references, each replaced as a whole."""

    served: ServedPolicy
    refresh: Refresh


class Watcher:
    """Keeps a replica's policy to what its model URI means in the registry. Its thread ends with the process."""

    def __init__(self, replica: Watched, registry: Registry, admission: Admission, settings: Settings) -> None:
        self._replica, self._registry, self._admission, self._settings = replica, registry, admission, settings
        self._stop = threading.Event()
        self._failed_polls = 0
        self._refused: _Refused | None = None

    def start(self) -> None:
        """Watch in a thread of its own. A pinned number is watched until the registry has confirmed it."""
        threading.Thread(target=self._run, name="watcher", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def look(self) -> None:
        """Ask the registry once, and do what follows."""
        try:
            version = self._registry.poll(self._settings.model_uri)
        except ServingError as error:
            self._failed_polls += 1
            self._fail(error)
            return
        self._failed_polls = 0
        served = self._replica.served
        if _identity(version) == _identity(served.version):
            self._confirm(served, version)
        elif self._refused is None or not self._refused.holds(version):
            self._replace(served, version)
        else:
            self._replica.refresh = replace(self._replica.refresh, last=now())

    def pause_s(self) -> float:
        """Return how long to wait before the next look: jittered, and longer each time the registry is down."""
        pause = min(self._settings.refresh_interval_s * 2.0**self._failed_polls, MAX_PAUSE_S)
        return random.uniform(0.5 if self._failed_polls else 0.9, 1.0) * max(pause, self._settings.refresh_interval_s)  # noqa: S311

    def _run(self) -> None:
        pinned = Reference.parse(self._settings.model_uri).number is not None
        while not (pinned and not self._replica.refresh.degraded) and not self._stop.wait(self.pause_s()):
            try:
                self.look()
            except Exception:
                # The thread must live: without it the replica would serve an old version and not know.
                logger.exception("the watch of %s failed", self._settings.model_uri)

    def _confirm(self, served: ServedPolicy, version: ModelVersion) -> None:
        self._refused = None
        if version != served.version:  # tags, or a stage: nothing that answers depend on
            self._replica.served = ServedPolicy(served.policy, version, loaded_at=served.loaded_at.timestamp())
        self._replica.refresh = replace(self._replica.refresh, last=now(), error=None, refused=None, degraded=False)

    def _replace(self, served: ServedPolicy, version: ModelVersion) -> None:
        try:
            new = self._admission.admit(version, served)
        except ServingError as error:
            self._refuse(version, error)
            return
        # Requests under way keep the old one, which goes with the last of them.
        self._replica.served = new
        self._refused = None
        swaps = self._replica.refresh.swaps + 1
        self._replica.refresh = replace(
            self._replica.refresh, last=now(), error=None, refused=None, degraded=False, swaps=swaps
        )
        logger.warning("%s: version %d replaces %d", version.uri, version.version, served.version.version)

    def _refuse(self, version: ModelVersion, error: ServingError) -> None:
        self._refused = _Refused.after(self._refused, version, error, self._settings.refresh_interval_s)
        refresh = self._replica.refresh
        refusal = Refusal.of(version, error)
        self._replica.refresh = replace(
            refresh,
            last=now(),
            error=f"version {version.version}: {error}",
            refused=refusal,
            refusals={**refresh.refusals, refusal.code: refresh.refusals.get(refusal.code, 0) + 1},
        )
        if refresh.refused is None or (refresh.refused.version, refresh.refused.reason) != (
            refusal.version,
            refusal.reason,
        ):
            serving = self._replica.served.version.version
            logger.error("%s: version %d is refused, %d goes on: %s", version.uri, version.version, serving, error)

    def _fail(self, error: ServingError) -> None:
        if self._replica.refresh.error != str(error):
            logger.warning("%s cannot be refreshed, the version served goes on: %s", self._settings.model_uri, error)
        self._replica.refresh = replace(self._replica.refresh, error=str(error))


@dataclass(frozen=True)
class _Refused:
    """A version that is not tried again, until the registry says something new of it, or the time has come."""

    version: int
    tags: Mapping[str, str]
    attempts: int
    again_at: float | None

    @classmethod
    def after(
        cls, before: "_Refused | None", version: ModelVersion, error: ServingError, interval_s: float
    ) -> "_Refused":
        attempts = before.attempts + 1 if before is not None and before.is_of(version) else 1
        pause = min(interval_s * 2.0**attempts, MAX_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311
        again_at = monotonic() + pause if isinstance(error, TRANSIENT) else None
        return cls(version.version, version.tags, attempts, again_at)

    def is_of(self, version: ModelVersion) -> bool:
        return (self.version, self.tags) == (version.version, version.tags)

    def holds(self, version: ModelVersion) -> bool:
        return self.is_of(version) and (self.again_at is None or monotonic() < self.again_at)


def _identity(version: ModelVersion) -> Any:
    return version.version, version.digests
