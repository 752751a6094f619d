"""Finds a replica's first policy: in the registry, or else the last known good version of this machine."""

import logging
from dataclasses import dataclass

from serving.arguments import Arguments
from serving.errors import ServingError
from serving.registry import tracking
from serving.registry.access import open_registry
from serving.registry.errors import ModelUriInvalid
from serving.registry.last_known_good import LastKnownGood
from serving.registry.model_version import ModelVersion, Resolved
from serving.replica.arms.arms import Challenge
from serving.replica.refresh_state import Refresh, now
from serving.replica.served_policy import ServedPolicy
from serving.rollout.candidate_admission import Admission
from serving.rollout.challenger import first_challenge
from serving.rollout.sharing.polls import SharedPolls
from serving.rollout.sharing.resolver import ApplicationPolls, Ask, Share
from serving.sandbox.sandbox import log_layers
from serving.uri_secrets import with_own_secrets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitialPolicy:
    """The policy that a replica starts with, and what its watcher needs for the versions that follow."""

    served: ServedPolicy
    refresh: Refresh
    admission: Admission
    polls: SharedPolls
    scope: str
    """Names the files that belong to the application on this node."""
    challenge: Challenge | None = None
    """The challenger of the running experiment, None if there is none or it cannot be loaded yet."""


def load_initial_policy(
    arguments: Arguments,
    deployment: str | None = None,
    resolved: Resolved | None = None,
    *,
    application: str | None = None,
    ask: Ask = lambda _: None,
    share: Share = lambda refusals: refusals,
) -> InitialPolicy:
    """Return the policy that the model URI refers to now, or the last known good one.

    A replica that replaces another one of its deployment serves no other spaces than that one did, unless the
    arguments allow it: only a new deployment changes the spaces. `deployment` is the id that its replicas share. The
    first ones take a version that was `resolved` recently, without asking the registry again. Of those that start
    together on one machine, one asks. `application` is the application's name, `ask` asks its resolver, and `share`
    shares refused versions through it.

    Raises:
        ServingError: neither can be served; the error is that of the version in the registry.
    """
    log_layers()
    tracking.use(None, arguments.registry_uri, arguments.workspace)
    uri = with_own_secrets(arguments.tracking_uri) if arguments.tracking_uri else tracking.tracking_uri()
    directory, model_uri = arguments.cache_directory, arguments.model_uri
    known = LastKnownGood(directory, uri, model_uri, deployment, application=application)
    registry = open_registry(uri)
    admission = Admission(registry, arguments, known)
    polls = SharedPolls(directory, known.scope, ApplicationPolls(registry.poll, ask, share, admission.refusals))
    admission.crashes.collect()
    wanted: ModelVersion | None = None
    try:
        is_first = not known.is_from_this_deployment()
        if is_first and resolved is not None and resolved.is_recent:
            wanted = resolved.version
        else:
            wanted = polls.resolve(lambda: registry.resolve(model_uri))
        predecessor = None if is_first else admission.last_known_good()
        served, state = _first(admission, wanted, predecessor)
    except ServingError as error:
        last = None if isinstance(error, ModelUriInvalid) else admission.last_known_good()
        if last is None:
            raise
        logger.warning("serving the last known good version, %d: %s", last.version.version, error)
        served, state = last, Refresh(error=str(error), degraded=True)
    return InitialPolicy(served, state, admission, polls, known.scope, first_challenge(admission, served, wanted))


def _first(
    admission: Admission, version: ModelVersion, predecessor: ServedPolicy | None
) -> tuple[ServedPolicy, Refresh]:
    """Return the policy of a version; if it failed in service before, that of the version before it, if there is one.

    Raises ServingError.
    """
    refusal = admission.refusals.of(version)
    if refusal is None:
        return admission.admit(version, predecessor), Refresh(last=now())
    served = predecessor or admission.last_known_good() or admission.admit(version)
    reason = refusal.describe(served.version.version)
    logger.error("%s: %s", version.uri, reason)
    return served, Refresh(last=now(), error=reason, rejected=refusal.rejected)
