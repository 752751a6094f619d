"""Timeouts and retries of a client's calls.

It uses the standard library only, so that a client needs one HTTP library and nothing else.
"""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple

RETRIED_STATUSES = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
"""Statuses of temporary failures."""

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
MAX_DOUBLINGS = 16
"""More of them than MAX_BACKOFF_S needs; a thousand would overflow a float."""

_JITTER = random.Random()  # noqa: S311  # it is no secret
"""Not the global generator: that is the caller's, who may seed it, and then clients would retry in step."""


class Response(NamedTuple):
    """An HTTP response; the names of `headers` are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoResponse(NamedTuple):
    """The failure of a request that received no response; the server may have processed it."""

    reason: str
    error: Exception


@dataclass(frozen=True)
class RetryPolicy:
    """The timeouts and the number of retries of one call; `BaseClient` describes them."""

    connect_timeout_s: float = 2.0
    timeout_s: float = 10.0
    total_timeout_s: float = 30.0
    retries: int = 3


class Attempts:
    """Counts the attempts of one call and limits its total time."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._deadline = time.monotonic() + policy.total_timeout_s
        self._retries = 0

    @property
    def remaining_s(self) -> float:
        """The seconds until the total timeout; at least a millisecond, because HTTP libraries reject zero."""
        return max(self._deadline - time.monotonic(), 0.001)

    @property
    def timeouts_s(self) -> tuple[float, float]:
        """The connect timeout and the response timeout of the next attempt, in seconds."""
        remaining = self.remaining_s
        return min(self._policy.connect_timeout_s, remaining), min(self._policy.timeout_s, remaining)

    def delay_after(self, outcome: Response | NoResponse) -> float | None:
        """Return the seconds to wait before the next attempt, or None if the outcome is final.

        Repeating a request is safe even if the server processed it: the server keeps no state, and a reward or an
        outcome that arrives twice counts once.
        """
        temporary = isinstance(outcome, NoResponse) or outcome.status in RETRIED_STATUSES
        if not temporary or self._retries == self._policy.retries:
            return None
        backoff = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(self._retries, MAX_DOUBLINGS))
        self._retries += 1
        retry_after = _retry_after_s(outcome.headers) if isinstance(outcome, Response) else 0.0
        delay = retry_after + _JITTER.uniform(0.0, backoff)
        return delay if delay < self._deadline - time.monotonic() else None


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Return the seconds that `Retry-After` requests, a number or a date (RFC 9110, section 10.2.3), by default 0."""
    text = headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
