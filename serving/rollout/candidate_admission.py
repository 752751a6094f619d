"""Decides whether a version is served, both when a replica starts and after a promotion."""

import logging
from dataclasses import replace

from serving.arguments import Arguments
from serving.errors import ServingError
from serving.policy.bundle import Bundle
from serving.policy.guards.watchdog import Guard
from serving.policy.policy import Policy
from serving.policy.spaces import space_differences
from serving.policy.tensors import Tensors
from serving.registry.access import Registry
from serving.registry.cache import BundleCache
from serving.registry.errors import CacheUnwritable
from serving.registry.last_known_good import LastKnownGood
from serving.registry.model_version import ModelVersion
from serving.replica.served_policy import ServedPolicy
from serving.rollout.candidate_trial import run_trial, trial_conditions
from serving.rollout.crashes import Crashes, label_of
from serving.rollout.errors import ArmsDiffer, SpacesDiffer
from serving.rollout.refusals import Refusals
from serving.rollout.sharing.trials import SharedTrial

logger = logging.getLogger(__name__)


class Admission:
    """Fetches, tests and loads versions."""

    def __init__(self, registry: Registry, arguments: Arguments, known: LastKnownGood) -> None:
        self.registry, self.arguments, self._known = registry, arguments, known
        self.refusals = Refusals(arguments.cache_directory, known.scope)
        self.crashes = Crashes(arguments.cache_directory, known.scope, self.refusals)

    def admit(
        self, version: ModelVersion, serving: ServedPolicy | None = None, live: Tensors | None = None
    ) -> ServedPolicy:
        """Return the version's policy, ready to serve, and record it as the last known good one.

        What the arguments demand of a version is checked first, before any of its files is read. The bundle is fetched,
        verified and loaded. Files that this machine has not served last are first tried in a child process, once for
        all replicas of this machine, also with `live` observations.

        Raises:
            BundleError, CacheUnwritable: the version cannot be served, or not now.
            ProviderUnavailable: the execution provider cannot be used on this machine.
            SpacesDiffer: its spaces differ from those of `serving`, and `allow_space_change` is off.
        """
        self.arguments.requirements.check(version)
        bundle = self.registry.fetch(version, self.arguments.cache_directory)
        if not self._known.has_files_of(version):
            self._try(bundle, version, live)
        served = self._load(bundle, version)
        if serving is not None and not self.arguments.allow_space_change:
            for role, before, after in space_differences(serving.policy, served.policy):
                raise SpacesDiffer(role, str(before), str(after))
        self._record(version)
        return served

    def admit_challenger(
        self, challenger: ModelVersion, champion: ServedPolicy, live: Tensors | None = None
    ) -> ServedPolicy:
        """Return the policy of the challenger of an experiment, after the same checks as in `admit`.

        It must have passed the gate of the champion's stage or alias if a gate is required, and its spaces must be the
        champion's whatever the arguments allow, because a client does not know which of them answers.

        Raises:
            BundleError, CacheUnwritable, ProviderUnavailable: as `admit`.
            ArmsDiffer: its spaces differ from the champion's.
        """
        self.arguments.requirements.check(replace(challenger, uri=champion.version.uri))
        bundle = self.registry.fetch(challenger, self.arguments.cache_directory)
        self._try(bundle, challenger, live)
        served = self._load(bundle, challenger)
        for role, before, after in space_differences(champion.policy, served.policy):
            raise ArmsDiffer(role, str(before), str(after))
        return served

    def last_known_good(self) -> ServedPolicy | None:
        """Return the version that this machine served last, None if there is none or it may not or cannot be served.

        In the place of one that failed in service, it is the version before, if there is one that works.
        """
        known = [each for each in (self._known.load(), *self._known.previous()) if each is not None]
        working = [each for each in known if self.refusals.of(each) is None]
        return next(filter(None, map(self._served_before, working or known)), None)

    def fallback_of(self, serving: ServedPolicy) -> ServedPolicy | None:
        """Return the last version that `serving` replaced here, ready to answer when it fails; None if there is none.

        It has the same spaces, and has not failed in service itself.
        """
        for version in self._known.previous():
            if version.version < serving.version.version and self.refusals.of(version) is None:
                served = self._served_before(version)
                if served is not None and not space_differences(serving.policy, served.policy):
                    return served
        return None

    def record(self, version: ModelVersion) -> None:
        """Record that a version is served, unless it is known already."""
        if self._known.load() != version:
            self._record(version)

    def _served_before(self, version: ModelVersion) -> ServedPolicy | None:
        try:
            self.arguments.requirements.check(version)
            bundle = self.registry.fetch(version, self.arguments.cache_directory)
            return self._load(bundle, version)
        except ServingError as error:
            logger.warning("version %d, which was served before, cannot be served: %s", version.version, error)
            return None

    def _try(self, bundle: Bundle, version: ModelVersion, live: Tensors | None) -> None:
        """Run the policy in a child process, unless another replica has. Raises CandidateRejected and others."""
        directory = BundleCache(self.arguments.cache_directory).path(version)
        conditions = trial_conditions(self.arguments)
        SharedTrial(directory, version.tags, conditions).run(lambda: run_trial(bundle, conditions, live))

    def _load(self, bundle: Bundle, version: ModelVersion) -> ServedPolicy:
        threads, provider = self.arguments.num_threads, self.arguments.execution_provider
        guard = Guard(self.arguments.inference_timeout_s, label_of(version))
        self.crashes.note(guard.label, version)  # before it computes for the first time
        return ServedPolicy(Policy.load(bundle, num_threads=threads, provider=provider, guard=guard), version)

    def _record(self, version: ModelVersion) -> None:
        """Record a version as the last known good one, with its tags and the challenger of its experiment."""
        try:
            self._known.save(version)
        except CacheUnwritable as error:
            logger.warning("version %d cannot be recorded as the last known good one: %s", version.version, error)
        self._known.prune_cache(self.arguments.cache_bytes)
