"""Answers a request again when the served version fails: the version before answers, and this one is taken back."""

import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from serving.errors import HttpError
from serving.policy.errors import InferenceTimeout, PolicyFault, VersionCrashed
from serving.policy.spaces import space_differences
from serving.registry.model_version import ModelVersion
from serving.replica.errors import AnswerTooLate
from serving.replica.metrics import Metrics
from serving.replica.served_policy import ServedPolicy
from serving.rollout.crashes import Crashes

logger = logging.getLogger(__name__)

FAULTS = (PolicyFault, AnswerTooLate)
"""Errors of a version for which another version may answer."""

Answer = TypeVar("Answer")

Refuse = Callable[[ModelVersion, str, str], object]
"""Records that a version failed in service, by the code and the message of its fault. It may block."""


class Replica(Protocol):
    """What is needed of the application."""

    metrics: Metrics
    served: ServedPolicy

    def release(self, served: ServedPolicy) -> None:
        """Release a version that is held for the episodes that began with it, or that is the challenger."""


class Faults:
    """Finds another version for a request that one fails to answer.

    A fault that another version has with the same request is one of the request: then nothing is taken back. Nor is a
    version that is late, because the machine may be busy; one that computes for too long is stopped and taken back.
    """

    def __init__(self, replica: Replica, refuse: Refuse, crashes: Crashes | None = None) -> None:
        """Without `crashes`, nothing is known of other replicas."""
        self._replica, self._refuse, self._crashes = replica, refuse, crashes

    def fallback_of(self, served: ServedPolicy) -> ServedPolicy | None:
        """Return the policy that answers what `served` fails to answer: the version before it, or the current one.

        None if there is none with the same spaces.
        """
        current = self._replica.served
        fallback = served.fallback or served.whole.fallback
        if fallback is not None:
            return fallback
        return None if current is served.whole or space_differences(served.policy, current.policy) else current

    def check(self, served: ServedPolicy) -> None:
        """Raise VersionCrashed if a version has just ended another replica, and a fallback can answer instead.

        The proxy sends the request that ended the other replica to this one: it must not be computed again.
        """
        if self._crashes is None or not self._crashes.has_alarm() or not self._crashes.have_refused(served.version):
            return
        if (fallback := self.fallback_of(served)) is not None:
            fault = VersionCrashed()
            if not served.whole.is_withdrawn:
                self._withdraw(served.whole, fault, fallback)
            raise fault

    async def answer_again(
        self,
        fault: PolicyFault | AnswerTooLate,
        served: ServedPolicy,
        answer: Callable[[ServedPolicy], Awaitable[Answer]],
    ) -> tuple[ServedPolicy, Answer]:
        """Return the policy that answers the request instead of `served`, and its answer. Raises `fault` if none does.

        A request that is late because a call is stuck proves nothing yet: the machine may be busy.

        Args:
            fault: What `served` raised.
            served: The policy that failed.
            answer: Answers the request with a policy.
        """
        fallback = self.fallback_of(served)
        is_current = self._replica.served is served.whole
        is_waiting = isinstance(fault, AnswerTooLate) and not fault.is_stuck
        if fallback is None or (is_waiting and is_current):  # another version would be as late on a busy machine
            raise fault
        try:
            answered = await answer(fallback)
        except HttpError as other:
            raise fault from other
        self._replica.metrics.requests_fallen_back[fault.code] += 1
        if isinstance(fault, PolicyFault):
            if not served.whole.is_withdrawn:
                self._withdraw(served.whole, fault, fallback)
        elif fault.is_stuck:
            served.whole.was_stuck = True
        return fallback, answered

    def note_timeout(self, fault: InferenceTimeout, served: ServedPolicy) -> None:
        """Take a version back whose call was stopped after its fallback had answered the requests."""
        fallback = self.fallback_of(served)
        if served.was_stuck and fallback is not None and not served.is_withdrawn:
            self._withdraw(served, fault, fallback)

    def _withdraw(self, served: ServedPolicy, fault: PolicyFault, fallback: ServedPolicy) -> None:
        """Take a version back at once, here, and record that it is refused, which the other replicas see."""
        served.is_withdrawn = True
        served.batcher.withdraw(fault)
        version = served.version
        if self._replica.served is served:
            self._replica.served = fallback.whole
        else:
            self._replica.release(served)
        message = "%s: version %d failed and is taken back, version %d answers: %s"
        logger.error(message, version.uri, version.version, fallback.version.version, fault.details)
        # Another process may hold the lock of the file for a moment.
        arguments = version, fault.code, str(fault)
        threading.Thread(target=self._refuse, args=arguments, name="refusal", daemon=True).start()
