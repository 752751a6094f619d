"""Errors of the sessions of `/play`."""

from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import HttpError, ServingError
from serving.replica.errors import RETRY_AFTER


@dataclass(eq=False)
class PlayBusy(HttpError):
    """All `limit` sessions of the replica are in use."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "play_busy"
    template = "all {limit} sessions of this page are in use; close another page, or try again later"

    headers = (RETRY_AFTER,)

    limit: int


@dataclass(eq=False)
class EnvironmentFailed(ServingError):
    """The environment of a session raised an exception, or its process ended."""

    template = "the environment failed: {reason}"

    reason: str
