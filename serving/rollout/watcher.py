"""Polls the registry in a thread and replaces a replica's policy after a promotion, without delaying requests.

poll -> refused? -> another version? -> fetch and verify -> trial in a child process -> load -> same spaces? -> replace
"""

import logging
import math
import random
import threading
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from serving.errors import ServingError
from serving.registry.errors import VersionMissing
from serving.registry.model_uri import ModelUri
from serving.registry.model_version import ModelVersion
from serving.replica.refresh_state import RejectedVersion, explain, now
from serving.replica.served_policy import ServedPolicy
from serving.rollout.candidate_admission import Admission
from serving.rollout.challenger import Challengers
from serving.rollout.errors import TRANSIENT
from serving.rollout.sharing.polls import OwnPolls, Polls
from serving.rollout.trial.observations import LiveObservations
from serving.rollout.withdrawal import Replica, Withdrawal

logger = logging.getLogger(__name__)

MAX_PAUSE_S = 30.0
"""The longest pause between two polls, or between two attempts to serve a version."""
MAX_DOUBLINGS = 64
"""More of them than MAX_PAUSE_S needs; a thousand would overflow a float."""
STALE_AFTER_S, STALE_AFTER_INTERVALS = 60.0, 3
"""The registry has not answered for long after that many seconds, or after that many intervals, if they are longer."""


class Watcher:
    """Keeps a replica's policy at the version that its model URI refers to."""

    def __init__(self, replica: Replica, admission: Admission, polls: Polls | None = None) -> None:
        """Without `polls`, the replica polls the registry for itself."""
        self._polls = polls or OwnPolls(lambda: admission.registry.poll)
        self._replica, self._admission, self._arguments = replica, admission, admission.arguments
        self._pinned = ModelUri.parse(self._arguments.model_uri).number is not None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()
        self._withdrawal, self._live = Withdrawal(replica, admission), LiveObservations()
        self._challengers = Challengers(replica, admission, self._live.tensors)
        self._failed_polls = 0
        self._rejected: tuple[int, Mapping[str, str]] | None = None
        """The number and the tags of the last version that was rejected."""
        self._attempts = 0
        self._retry_at = math.inf
        """The `monotonic` time from which on the rejected version is tried again, if its tags do not change before."""

    def start(self) -> None:
        """Poll in a daemon thread. A pinned version is polled only until the registry has confirmed it.

        Calling it again does nothing, unless the thread has died: then another one takes its place.
        """
        if self._is_done() or (self._thread is not None and self._thread.is_alive()):
            return
        if self._thread is None:
            self._update(stale_at=self._stale_at())
        else:
            logger.error("the thread that polls %s has died and is started again", self._arguments.model_uri)
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stopped.set()

    def poll(self) -> None:
        """Poll once, serve the version that the registry returned, and the challenger of its experiment.

        Before that, load the version before the served one.
        """
        self._withdrawal.keep_fallback()
        self._challengers.update(self._poll())

    def _poll(self) -> ModelVersion | None:
        """Poll once, and serve the version that the registry returned.

        Return it, or the served one if the registry does not answer, or None if it names none.
        """
        try:
            version = self._polls.poll(self._arguments.model_uri)
        except VersionMissing as error:
            # The registry works: somebody has emptied the stage or removed the alias.
            self._note_answer()
            self._rejected = None
            self._keep_serving(error, rejected=None)
            return None
        except Exception as error:  # noqa: BLE001 - MLflow and its libraries may raise any
            self._failed_polls += 1
            self._keep_serving(error)
            return self._replica.served.version
        self._note_answer()
        if self._withdrawal.refused(version):
            self._rejected = None
        else:
            self._serve(version)
        return version

    def pause_s(self) -> float:
        """Return the seconds until the next poll."""
        return _backoff_s(self._arguments.refresh_interval_s, self._failed_polls)

    def _serve(self, version: ModelVersion) -> None:
        served = self._replica.served
        if (version.version, version.digests) == (served.version.version, served.version.digests):
            self._confirm(served, version)
        elif self._rejected == (version.version, version.tags) and monotonic() < self._retry_at:
            rejected = self._replica.refresh.rejected
            self._update(error=rejected and rejected.describe())
        else:
            self._replace(served, version)

    def _run(self) -> None:
        try:
            while not self._is_done() and not self._polls.wait(self.pause_s(), self._stopped, self._look):
                try:
                    self.poll()
                except BaseException:
                    # Not even SystemExit may end this thread: the replica would serve an old version for ever.
                    logger.exception("polling %s failed", self._arguments.model_uri)
        finally:
            self._polls.close()
        self._update(stale_at=math.inf)

    def _look(self) -> None:
        """Do what cannot wait for the next poll."""
        try:
            self._live.look(self._replica.served.batcher.last)
            self._withdrawal.look()
            self._challengers.look()
        except Exception:
            logger.exception("looking for versions that failed in service has failed")

    def _is_done(self) -> bool:
        return self._stopped.is_set() or (self._pinned and not self._replica.refresh.degraded)

    def _note_answer(self) -> None:
        self._failed_polls = 0
        self._update(last=now(), stale_at=self._stale_at())

    def _stale_at(self) -> float:
        """Return the time from which on the registry has not answered for long, if it does not answer from now on."""
        return monotonic() + max(STALE_AFTER_S, STALE_AFTER_INTERVALS * self._arguments.refresh_interval_s)

    def _confirm(self, served: ServedPolicy, version: ModelVersion) -> None:
        self._rejected = None
        if version != served.version:  # its tags or its stage have changed, which no answer depends on
            self._admission.crashes.note(served.policy.label, version)
            self._replica.served = ServedPolicy(served.policy, version, loaded_at=served.loaded_at.timestamp())
            self._admission.record(version)  # a replica that starts while the registry is down needs the experiment
        self._update(error=None, rejected=None, degraded=False)

    def _replace(self, served: ServedPolicy, version: ModelVersion) -> None:
        try:
            # Requests in progress keep a reference to the old policy.
            self._replica.served = self._admission.admit(version, served, self._live.tensors())
        except Exception as error:  # noqa: BLE001 - beside its own errors, such as those of a machine without memory
            self._reject(version, error)
            return
        self._rejected = None
        self._withdrawal.serving = version.version
        swaps = self._replica.refresh.swaps + 1
        self._update(error=None, rejected=None, degraded=False, swaps=swaps)
        logger.warning("%s: version %d replaces version %d", version.uri, version.version, served.version.version)

    def _reject(self, version: ModelVersion, error: Exception) -> None:
        self._attempts = self._attempts + 1 if self._rejected == (version.version, version.tags) else 1
        self._rejected = version.version, version.tags
        pause_s = _backoff_s(self._arguments.refresh_interval_s, self._attempts)
        final = isinstance(error, ServingError) and not isinstance(error, TRANSIENT)
        self._retry_at = math.inf if final else monotonic() + pause_s
        before, rejected = self._replica.refresh, RejectedVersion.of(version, error)
        self._update(
            error=rejected.describe(),
            rejected=rejected,
            rejections={**before.rejections, rejected.code: before.rejections.get(rejected.code, 0) + 1},
        )
        if before.rejected is None or replace(before.rejected, at=rejected.at) != rejected:
            serving = self._replica.served.version.version
            message = "%s: version %d is rejected, version %d stays in service: %s"
            logger.error(message, version.uri, version.version, serving, error, exc_info=_unexpected(error))

    def _keep_serving(self, error: Exception, **changes: Any) -> None:
        """Report that the poll returned no version."""
        if self._replica.refresh.error != explain(error) and not self._stopped.is_set():
            served = self._replica.served.version.version
            message = "polling %s failed, version %d stays in service: %s"
            logger.warning(message, self._arguments.model_uri, served, error, exc_info=_unexpected(error))
        self._update(error=explain(error), **changes)

    def _update(self, **changes: Any) -> None:
        self._replica.refresh = replace(self._replica.refresh, **changes)


def _unexpected(error: Exception) -> Exception | None:
    """Return the error if its traceback belongs into the log."""
    return None if isinstance(error, ServingError) else error


def _backoff_s(interval_s: float, failures: int) -> float:
    """Return the pause before the next attempt: jittered, and doubled with each failure up to MAX_PAUSE_S."""
    pause = max(min(interval_s * 2.0 ** min(failures, MAX_DOUBLINGS), MAX_PAUSE_S), interval_s)
    return random.uniform(0.5 if failures else 0.9, 1.0) * pause  # noqa: S311
