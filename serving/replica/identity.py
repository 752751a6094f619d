"""The identity of one replica, and its request counters, as `/model` reports them to `serving status`."""

import os
from dataclasses import dataclass, field

from serving.policy.spaces import Json
from serving.replica.refresh_state import now


@dataclass
class Counts:
    """Counters of one replica since it started."""

    answered: int = 0
    """Requests for actions that were answered."""
    errors: int = 0
    """Requests of any kind that ended in an error."""


@dataclass(frozen=True)
class ReplicaIdentity:
    """Identifies one process that answers requests."""

    id: str = "0"
    num_replicas: int = 1
    """The number of replicas that the application was started with."""
    pid: int = field(default_factory=os.getpid)
    started_at: str = field(default_factory=now)

    def describe(self, counts: Counts) -> dict[str, Json]:
        """Return the member `replica` of `/model`."""
        identity = {"id": self.id, "of": self.num_replicas, "pid": self.pid, "started_at": self.started_at}
        return {**identity, "answered": counts.answered, "errors": counts.errors}
