"""One poll a node: one of a node's replicas polls the registry, the others read its outcome from a file.

The replica that holds the lock `<cache>/wanted/<scope>.lock` polls. When it dies, the kernel releases the lock, and the
replica whose next poll is due first takes it.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Protocol

from serving.errors import ServingError
from serving.registry.model_version import ModelVersion
from serving.registry.node.file_lock import FileLock
from serving.registry.node.wanted import Outcome, Signature, WantedFile

logger = logging.getLogger(__name__)

CHECK_S = 0.2
"""The pause between two looks at the file, which take microseconds."""
HANGS_AFTER_S = 15.0
"""A replica that holds the lock for that long after a poll was due, or for another pause if that is longer, hangs, and
another one polls too; after twice that time, all do. Requests to an MLflow server that hangs end before."""
RESOLVE_S = 15.0
"""The time for which a replica that starts waits for another one that starts and asks the registry."""


Poll = Callable[[str], ModelVersion]
"""Returns the version that a model URI refers to now. Raises ServingError, and whatever MLflow raises."""


def _nothing() -> None:
    """Do nothing."""


class Polls(Protocol):
    """Where a watcher learns which version its model URI refers to. One thread at a time uses it."""

    def wait(self, pause_s: float, stopped: threading.Event, meanwhile: Callable[[], None] = _nothing) -> bool:
        """Wait until `poll` has something to return, usually for `pause_s`. Return whether `stopped` is set.

        It calls `meanwhile` every CHECK_S seconds.
        """

    def poll(self, model_uri: str) -> ModelVersion:
        """Return the version that the URI refers to. Raises ServingError, and whatever MLflow raises."""

    def close(self) -> None:
        """Let other replicas poll. `wait` and `poll` may be called again."""


class OwnPolls:
    """A replica that polls for itself. `poll` is looked up at each call."""

    def __init__(self, poll: Callable[[], Poll]) -> None:
        self._poll = poll

    def wait(self, pause_s: float, stopped: threading.Event, meanwhile: Callable[[], None] = _nothing) -> bool:
        """Wait for the pause."""
        due = monotonic() + pause_s
        while (remaining_s := due - monotonic()) > 0:
            if stopped.wait(min(remaining_s, CHECK_S)):
                return True
            meanwhile()
        return stopped.is_set()

    def poll(self, model_uri: str) -> ModelVersion:
        """Poll the registry."""
        return self._poll()(model_uri)

    def close(self) -> None:
        """Do nothing."""


class SharedPolls:
    """The polls that the replicas of a node share which have the same cache directory and scope.

    A directory that cannot be written, or that has no locks, costs a warning: the replica then polls for itself.
    """

    def __init__(self, directory: Path, scope: str, poll: Poll) -> None:
        self._poll, self._directory = poll, directory
        locks = directory / "wanted"
        self._wanted, self._lock = WantedFile(directory, scope), FileLock(locks / f"{scope}.lock")
        self._deputy = FileLock(locks / f"{scope}-deputy.lock")
        self._first, self._first_lock = WantedFile(directory, f"{scope}-first"), FileLock(locks / f"{scope}-first.lock")
        self._seen = self._wanted.signature()
        self._has_warned = False

    def resolve(self, resolve: Callable[[], ModelVersion]) -> ModelVersion:
        """Return the version for a replica that starts: of replicas that start together, one calls `resolve`.

        Raises what `resolve` raises.
        """
        began = time.time()
        with self._first_lock.held(RESOLVE_S):
            if (first := self._first.read()) is not None and first.at >= began:
                return first.result()
            if (last := self._wanted.read()) is not None and last.is_recent:
                return last.result()
            try:
                outcome = Outcome(resolve())
            except ServingError as error:
                self._write(self._first, Outcome.failed(error))
                raise
            self._write(self._first, outcome)
            return outcome.result()

    def wait(self, pause_s: float, stopped: threading.Event, meanwhile: Callable[[], None] = _nothing) -> bool:
        """Wait until another replica has polled, or it is this one's turn to poll after `pause_s`."""
        due = monotonic() + pause_s
        while not stopped.wait(_until_check_s(due - monotonic(), pause_s)):
            meanwhile()
            if self.is_ready(monotonic() - due, pause_s):
                return False
        return True

    def is_ready(self, overdue_s: float, pause_s: float = 0.0) -> bool:
        """Return whether another replica has polled, or this one shall poll.

        Args:
            overdue_s: the time since this replica's next poll was due; negative before.
            pause_s: the pause before that poll.
        """
        if self._wanted.signature() != self._seen:
            return True
        if overdue_s < 0:
            return False
        if self._takes(self._lock):
            return True
        limit_s = max(HANGS_AFTER_S, pause_s)
        return (overdue_s > limit_s and self._takes(self._deputy)) or overdue_s > 2 * limit_s

    def poll(self, model_uri: str) -> ModelVersion:
        """Return or raise the outcome of another replica's poll since the last call, or else poll the registry."""
        before = self._wanted.signature()
        if before != self._seen:
            self._seen = before
            if (outcome := self._wanted.read()) is not None:
                self._lock.release()  # another one polls, because this one hung or the lock's file was deleted
                return outcome.result()
        try:
            is_last, version = self._poll_and_publish(model_uri, before)
        finally:
            self._deputy.release()
        return version if is_last else self.poll(model_uri)

    def close(self) -> None:
        """Let another replica poll."""
        self._lock.release()
        self._deputy.release()

    def _poll_and_publish(self, model_uri: str, before: Signature) -> tuple[bool, ModelVersion]:
        """Return whether no other replica has polled meanwhile, and the version. Raises what the poll raises."""
        try:
            version = self._poll(model_uri)
        except Exception as error:
            self._publish(Outcome.failed(error), before)
            raise
        return self._publish(Outcome(version), before), version

    def _takes(self, lock: FileLock) -> bool:
        try:
            return lock.acquire()
        except OSError as error:
            self._warn(error)
            return True

    def _publish(self, outcome: Outcome, before: Signature) -> bool:
        """Write the outcome. Return False, and write nothing, if another replica has polled meanwhile."""
        if self._wanted.signature() != before:
            return False
        signature = self._write(self._wanted, outcome)
        if signature is None:
            self._lock.release()  # the others cannot see this outcome, so they poll too
        else:
            self._seen = signature
        return True

    def _write(self, file: WantedFile, outcome: Outcome) -> Signature:
        try:
            return file.write(outcome)
        except OSError as error:
            self._warn(error)
            return None

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            reason = error.strerror or error
            logger.warning(
                "%s cannot be shared with other replicas, so this one polls for itself: %s", self._directory, reason
            )


def _until_check_s(remaining_s: float, pause_s: float) -> float:
    """Return the pause until the next look at the file: shorter before a poll is due, and with short intervals."""
    return min(CHECK_S, remaining_s if remaining_s > 0 else pause_s / 10)
