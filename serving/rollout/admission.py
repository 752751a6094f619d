"""What a version must pass before it is served, at the start as after a promotion."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from serving.errors import ServingError
from serving.policy.policy import Policy
from serving.policy.spaces import space_to_json
from serving.registry.errors import CacheUnwritable
from serving.registry.last_known_good import LastKnownGood
from serving.registry.poller import Registry
from serving.registry.registry import ModelVersion
from serving.replica.served_policy import ServedPolicy
from serving.rollout import trial as candidate
from serving.rollout.errors import SpacesDiffer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How a replica finds its policy, and what it does with a new one."""

    model_uri: str
    cache_dir: Path
    refresh_interval_s: float = 2.0
    allow_space_change: bool = False
    cache_bytes: int = candidate.GIB
    num_threads: int = 1
    limits: candidate.Limits = field(default_factory=candidate.Limits)


class Admission:
    """Turns a version into a policy to serve, or says why not."""

    def __init__(self, registry: Registry, settings: Settings, good: LastKnownGood) -> None:
        self._registry, self._settings, self._good = registry, settings, good

    def admit(self, version: ModelVersion, serving: ServedPolicy | None = None) -> ServedPolicy:
        """Return the version's policy: fetched, verified, tried in a child unless it was here, loaded, and remembered.

        Raises:
            BundleError, CacheUnwritable: it is not to be served, or not now.
            SpacesDiffer: its spaces are not those of `serving`, and may not be others.
        """
        bundle = self._registry.fetch(version, self._settings.cache_dir)
        if not self._good.vouches_for(version):
            candidate.check(bundle, self._settings.limits)
        served = ServedPolicy(Policy.load(bundle, num_threads=self._settings.num_threads), version)
        if serving is not None and not self._settings.allow_space_change:
            check_spaces(serving.policy, served.policy)
        self._remember(version)
        return served

    def served_by_siblings(self) -> ServedPolicy | None:
        """Return what a replica of this same deployment last served here, None where none did."""
        return self.last_known_good() if self._good.is_own() else None

    def last_known_good(self) -> ServedPolicy | None:
        """Return the version that was last served here, None where there is none that can be."""
        version = self._good.recall()
        if version is None:
            return None
        try:
            bundle = self._registry.fetch(version, self._settings.cache_dir)
            return ServedPolicy(Policy.load(bundle, num_threads=self._settings.num_threads), version)
        except ServingError as error:
            logger.warning("the last known good version, %d, cannot be served either: %s", version.version, error)
            return None

    def _remember(self, version: ModelVersion) -> None:
        try:
            self._good.remember(version)
        except CacheUnwritable as error:
            logger.warning("version %d will not be known as good after a restart: %s", version.version, error)
        self._good.bound(self._settings.cache_bytes)


def check_spaces(served: Policy, found: Policy) -> None:
    """Raise SpacesDiffer unless both take the same observations and return the same actions."""
    pairs = (
        ("observation", served.observation_space, found.observation_space),
        ("action", served.action_space, found.action_space),
    )
    for kind, one, other in pairs:
        if space_to_json(one) != space_to_json(other):
            raise SpacesDiffer(kind, str(one), str(other))
