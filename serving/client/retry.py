"""How long a client waits, and when it asks again."""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple

PASSING = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
"""What a server answers that may answer otherwise a moment later."""

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0


class Reply(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    """Their names in any case."""
    body: bytes


class Lost(NamedTuple):
    """A request that got no answer; the server may have had it or not."""

    reason: str
    error: Exception


@dataclass(frozen=True)
class Patience:
    """The bounds of one call, in seconds, and how often it is tried again."""

    connect_timeout_s: float = 2.0
    """For a connection, each time."""
    timeout_s: float = 10.0
    """For an answer, each time."""
    total_timeout_s: float = 30.0
    """For everything: attempts and the waits between them."""
    retries: int = 3
    """Attempts after the first."""


class Call:
    """One call under way: how often it was tried, and the time that it has left."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._ends_at = time.monotonic() + patience.total_timeout_s
        self._retries = 0

    @property
    def left_s(self) -> float:
        """The seconds left for the whole call; some, for an attempt has begun."""
        return max(self._ends_at - time.monotonic(), 0.001)

    @property
    def timeouts_s(self) -> tuple[float, float]:
        """The seconds that the next attempt has for its connection and for its answer."""
        left = self.left_s
        return min(self._patience.connect_timeout_s, left), min(self._patience.timeout_s, left)

    def wait_after(self, outcome: Reply | Lost) -> float | None:
        """Return the seconds to wait before the next attempt, None where the outcome is final.

        To ask again is safe whatever became of the request: a server keeps nothing of it.
        """
        if self._retries == self._patience.retries or (isinstance(outcome, Reply) and outcome.status not in PASSING):
            return None
        backoff = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**self._retries)
        self._retries += 1
        asked = _retry_after_s(outcome.headers) if isinstance(outcome, Reply) else 0.0
        wait = asked + random.uniform(0.0, backoff)  # noqa: S311 - so that clients do not all come back at once
        return wait if wait < self._ends_at - time.monotonic() else None


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Return what `Retry-After` asks for, as seconds or a date (RFC 9110, section 10.2.3); 0 if nothing it can mean."""
    text = headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
