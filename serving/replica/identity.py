"""Which of several processes this is, and what it has done: what `serving status` gathers from each."""

import os
from dataclasses import dataclass, field

from serving.policy.spaces import Json
from serving.replica.refresh_state import now


@dataclass
class Counts:
    """How many requests for actions were answered, and how many of all requests with an error."""

    answered: int = 0
    errors: int = 0


@dataclass(frozen=True)
class Replica:
    """One process that answers, of `of` that were asked for."""

    id: str = "0"
    of: int = 1
    pid: int = field(default_factory=os.getpid)
    started_at: str = field(default_factory=now)

    def describe(self, counts: Counts) -> dict[str, Json]:
        """Return what `/model` says of it."""
        own = {"id": self.id, "of": self.of, "pid": self.pid, "started_at": self.started_at}
        return {**own, "answered": counts.answered, "errors": counts.errors}


def this(of: int) -> Replica:
    """Return the Serve replica that runs here."""
    from ray import serve

    return Replica(id=serve.get_replica_context().replica_id.unique_id, of=of)
