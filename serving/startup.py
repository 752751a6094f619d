"""How a replica finds its first policy: in the registry, else in what this machine remembers."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import ServingError
from serving.http.app import PolicyApp
from serving.registry import tracking
from serving.registry.errors import ModelUriInvalid
from serving.registry.last_known_good import LastKnownGood
from serving.registry.poller import Registry, open_registry
from serving.registry.registry import default_cache_dir
from serving.replica.refresh_state import Refresh, now
from serving.replica.served_policy import ServedPolicy
from serving.rollout.admission import Admission, Settings
from serving.rollout.trial import Limits
from serving.rollout.watcher import Watcher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """A policy to begin with, how it was found, and all that is needed to keep it current."""

    served: ServedPolicy
    refresh: Refresh
    settings: Settings
    registry: Registry
    admission: Admission

    def watch(self, app: PolicyApp) -> Watcher:
        """Keep the application's policy current, from now on."""
        watcher = Watcher(app, self.registry, self.admission, self.settings)
        watcher.start()
        return watcher


def started(arguments: Any, deployment: str | None = None) -> Start:
    """Return the policy that the registry names now, or the last known good one.

    A replica that succeeds another keeps to the spaces that its siblings serve: only a person's restart changes them.

    Args:
        arguments: `serving.app.Arguments`, with a tracking URI.
        deployment: identifies what a person started, through all restarts of its replicas; None for none.

    Raises:
        ServingError: neither is to be had; it says what is wrong with the first.
    """
    settings = settings_from(arguments)
    uri = arguments.tracking_uri or tracking.tracking_uri()
    registry = open_registry(uri)
    admission = Admission(registry, settings, LastKnownGood(settings.cache_dir, uri, settings.model_uri, deployment))
    try:
        served = admission.admit(registry.resolve(settings.model_uri), admission.served_by_siblings())
        refresh = Refresh(last=now())
    except ServingError as error:
        served, refresh = fall_back(admission, error)
    return Start(served, refresh, settings, registry, admission)


def fall_back(admission: Admission, error: ServingError) -> tuple[ServedPolicy, Refresh]:
    """Return the last known good version, and how it came to that. Raises `error` where there is none."""
    served = None if isinstance(error, ModelUriInvalid) else admission.last_known_good()
    if served is None:
        raise error
    logger.warning("serving the last known good version, %d: %s", served.version.version, error)
    return served, Refresh(error=str(error), degraded=True)


def settings_from(arguments: Any) -> Settings:
    """Return what of an application's arguments is about finding its policy."""
    return Settings(
        model_uri=arguments.model_uri,
        cache_dir=Path(arguments.cache_dir) if arguments.cache_dir else default_cache_dir(),
        refresh_interval_s=arguments.refresh_interval_s,
        allow_space_change=arguments.allow_space_change,
        cache_bytes=arguments.cache_bytes,
        num_threads=arguments.num_threads,
        limits=Limits(arguments.candidate_memory_bytes, arguments.candidate_timeout_s),
    )
