"""Errors of the page that shows the policy playing."""

from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import HttpError, ServingError
from serving.replica.errors import RETRY_AFTER


@dataclass(eq=False)
class PlayBusy(HttpError):
    """All of the replica's `limit` sessions of /play are taken."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "play_busy"

    limit: int

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Ask the client to wait before its next attempt."""
        return (RETRY_AFTER,)

    def __str__(self) -> str:
        return f"{self.limit} watch already, as many as may at once; close another page, or try again later"


@dataclass(eq=False)
class EnvironmentFailed(ServingError):
    """An environment that is played in a process of its own went wrong; `reason` is its own."""

    reason: str

    def __str__(self) -> str:
        return f"the environment failed: {self.reason}"
