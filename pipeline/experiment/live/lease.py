"""Lets one controller at a time act on an experiment: a lease in a tag of the champion's version.

MLflow cannot compare and set. So a controller that takes the lease waits for longer than a write takes, and reads who
has it then. Should two act in spite of it, what they write is the same: see `pipeline.experiment.live.ending`.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import mlflow
import psutil
from mlflow.exceptions import MlflowException

from pipeline.experiment.live.state import Live, key_of
from serving.experiments.experiment import lease_key

LEASE_S = 60.0
"""How long a lease lasts that is not renewed, as after a kill. It is renewed after half of it."""
SETTLE_S = 2.0
"""How long a write of another controller may take that had found the lease free."""


def is_conflict(error: Exception) -> bool:
    """Return whether another process has written the same new tag at the same moment, which MLflow's database refuses.

    SQLite and PostgreSQL call it a unique constraint, MySQL a duplicate entry.
    """
    text = str(error).lower()
    return isinstance(error, MlflowException) and ("unique constraint" in text or "duplicate entry" in text)


@contextmanager
def ignored_conflict() -> Iterator[None]:
    """Do without a write that was in conflict."""
    try:
        yield
    except MlflowException as error:
        if not is_conflict(error):
            raise


@dataclass
class Lease:
    """The right to act on an experiment.

    Attributes:
        live: The experiment.
        settle_s: See SETTLE_S.
        lease_s: See LEASE_S.
    """

    live: Live
    settle_s: float = SETTLE_S
    lease_s: float = LEASE_S
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}")
    _until: float | None = None
    """When it ends, by `monotonic`; None without it."""

    @property
    def key(self) -> str:
        """The key of the tag."""
        return lease_key(key_of(self.live.target))

    def acquire(self) -> str | None:
        """Take the lease, or renew it; return None with it, or who has it."""
        if self._until is not None and self._until - time.monotonic() > self.lease_s / 2:
            return None
        other = self.holder()
        if other is None:
            is_new = self._until is None or self._until < time.monotonic()  # as after an outage of MLflow
            until = time.monotonic() + self.lease_s
            with ignored_conflict():
                self._write({"owner": self.owner, "until_s": time.time() + self.lease_s})
            if is_new:
                time.sleep(self.settle_s)
                other = self.holder()
            self._until = until
        if other is not None:
            self._until = None
        return other

    def release(self) -> None:
        """Give the lease back, if this controller has it. What fails is left: the lease ends by itself."""
        if self._until is not None:
            self._until = None
            with suppress(MlflowException):
                if self._read().get("owner") == self.owner:
                    client, live = mlflow.MlflowClient(), self.live
                    client.delete_model_version_tag(live.target.model, str(live.experiment.champion), self.key)

    def holder(self) -> str | None:
        """Return the host and process that has the lease, None if no other controller has it."""
        found = self._read()
        owner = str(found.get("owner", ""))
        if owner in {"", self.owner} or float(found.get("until_s", 0)) < time.time():
            return None
        host, _, process = owner.rpartition(":")[0].rpartition(":")
        is_gone = host == socket.gethostname() and process.isdecimal() and not psutil.pid_exists(int(process))
        return None if is_gone else f"{host}, process {process}"

    def _read(self) -> dict[str, Any]:
        live = self.live
        version = mlflow.MlflowClient().get_model_version(live.target.model, str(live.experiment.champion))
        try:
            content = json.loads(version.tags.get(self.key, "{}"))
            return dict(content) | {"until_s": float(content.get("until_s", 0))}
        except (ValueError, TypeError, AttributeError):
            return {}  # somebody has edited the tag

    def _write(self, content: dict[str, Any]) -> None:
        live = self.live
        client = mlflow.MlflowClient()
        client.set_model_version_tag(
            live.target.model, str(live.experiment.champion), self.key, json.dumps(content, separators=(",", ":"))
        )
