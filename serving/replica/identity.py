"""The identity of one replica, and its request counters, as `/model` reports them to `serving status`."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from serving.policy.spaces import Json
from serving.replica.refresh_state import now

COUNT_EVERY_S = 10.0
"""Serve's controller, which counts for all replicas of a cluster, is not asked more often by one of them."""


@dataclass
class Counts:
    """Counters of one replica since it started."""

    answered: int = 0
    """Requests for actions that were answered."""
    errors: int = 0
    """Requests of any kind that ended in an error."""


class ReplicaCount:
    """The number of replicas of the application, counted again when it is asked for.

    Args:
        initial: The number until they have been counted.
        count: Counts them. It may block, and raise anything while Serve cannot tell.
    """

    def __init__(self, initial: int, count: Callable[[], int]) -> None:
        self._number, self._count = initial, count
        self._count_at = 0.0

    def __call__(self) -> int:
        """Return the last number at once, and count again in a thread if it is older than COUNT_EVERY_S."""
        if monotonic() >= self._count_at:
            self._count_at = monotonic() + COUNT_EVERY_S
            threading.Thread(target=self._refresh, name="replica count", daemon=True).start()
        return self._number

    def _refresh(self) -> None:
        with suppress(Exception):  # Serve's controller is gone, and the last number is as good as any
            self._number = self._count()


@dataclass(frozen=True)
class ReplicaIdentity:
    """Identifies one process that answers requests."""

    id: str = "0"
    num_replicas: Callable[[], int] = lambda: 1
    """Returns the number of replicas of the application."""
    release: str = "0"
    """The release of the code that runs in it."""
    pid: int = field(default_factory=os.getpid)
    started_at: str = field(default_factory=now)

    def describe(self, counts: Counts) -> dict[str, Json]:
        """Return the member `replica` of `/model`."""
        counted = {"answered": counts.answered, "errors": counts.errors}
        started = {"pid": self.pid, "started_at": self.started_at, "release": self.release}
        return {"id": self.id, "of": self.num_replicas(), **started, **counted}
