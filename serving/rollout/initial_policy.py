"""Finds a replica's first policy: in the registry, or else the last known good version of this machine."""

import logging
from dataclasses import dataclass

from serving.arguments import Arguments
from serving.errors import ServingError
from serving.registry import tracking
from serving.registry.access import open_registry
from serving.registry.errors import ModelUriInvalid
from serving.registry.last_known_good import LastKnownGood
from serving.registry.model_version import Resolved
from serving.replica.refresh_state import Refresh, now
from serving.replica.served_policy import ServedPolicy
from serving.rollout.candidate_admission import Admission

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitialPolicy:
    """The policy that a replica starts with, and the admission of the versions that follow."""

    served: ServedPolicy
    refresh: Refresh
    admission: Admission


def load_initial_policy(
    arguments: Arguments, deployment: str | None = None, resolved: Resolved | None = None
) -> InitialPolicy:
    """Return the policy that the model URI refers to now, or the last known good one.

    A replica that replaces another one of its deployment serves no other spaces than that one did, unless the
    arguments allow it: only a new deployment changes the spaces. `deployment` is the id that its replicas share. The
    first ones take a version that was `resolved` recently, without asking the registry again.

    Raises:
        ServingError: neither can be served; the error is that of the version in the registry.
    """
    tracking.use(None, arguments.registry_uri, arguments.workspace)
    uri = arguments.tracking_uri or tracking.tracking_uri()
    known = LastKnownGood(arguments.cache_directory, uri, arguments.model_uri, deployment)
    admission = Admission(open_registry(uri), arguments, known)
    try:
        is_first = not known.is_from_this_deployment()
        if is_first and resolved is not None and resolved.is_recent:
            version = resolved.version
        else:
            version = admission.registry.resolve(arguments.model_uri)
        predecessor = None if is_first else admission.last_known_good()
        return InitialPolicy(admission.admit(version, predecessor), Refresh(last=now()), admission)
    except ServingError as error:
        served = None if isinstance(error, ModelUriInvalid) else admission.last_known_good()
        if served is None:
            raise
        logger.warning("serving the last known good version, %d: %s", served.version.version, error)
        return InitialPolicy(served, Refresh(error=str(error), degraded=True), admission)
