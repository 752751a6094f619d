"""Authentication by a bearer token (RFC 6750, section 2.1)."""

import hmac
import logging
from collections.abc import Iterable
from pathlib import Path
from time import monotonic
from typing import Self

from serving.client.errors import TokenFileInvalid
from serving.client.token_file import read_token
from serving.replica.errors import Unauthorized

logger = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/health", "/ping", "/v2/health/live", "/v2/health/ready", "/play", "/docs"})
"""Paths that need no token: load balancers and probes have none, and the two pages contain no data and ask for it."""

CHECK_INTERVAL_S = 1.0
"""How often the file of the token is checked for a change, at most: with the first request after that time."""


class BearerToken:
    """The token that requests must carry. It never appears in a log or a response.

    Args:
        token: The token.
        file: The file that it was read from. The token is read again when the file changes.
    """

    def __init__(self, token: str, file: Path | None = None) -> None:
        self._token = token.encode()
        self._file = file
        self._state: tuple[int, ...] | None = None
        self._check_at = monotonic() + CHECK_INTERVAL_S

    @classmethod
    def from_file(cls, file: str | Path) -> Self:
        """Return the token in a file. Raises TokenFileInvalid."""
        return cls(read_token(file), Path(file))

    def __repr__(self) -> str:
        return "BearerToken(...)"

    def check(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise Unauthorized unless the path is open or the headers carry the token."""
        if path in OPEN_PATHS:
            return
        if self._file is not None and monotonic() >= self._check_at:
            self._read_if_changed(self._file)
        authorization = dict(headers).get(b"authorization", b"")
        scheme, _, credentials = authorization.partition(b" ")
        # compare_digest runs in constant time, so that the response time reveals nothing about the token.
        if scheme.lower() != b"bearer" or not hmac.compare_digest(credentials.strip(), self._token):
            raise Unauthorized(given=bool(authorization))

    def _read_if_changed(self, file: Path) -> None:
        """Read the token again if the file has changed. If it holds none now, the old token stays valid."""
        self._check_at = monotonic() + CHECK_INTERVAL_S
        state = _state(file)  # before the content: what is written after it counts as another change
        if state == self._state:
            return
        self._state = state
        try:
            token = read_token(file).encode()
        except TokenFileInvalid as error:
            logger.warning("the bearer token that was read before stays valid: %s", error)
            return
        if token != self._token:
            self._token = token
            logger.warning("%s has changed: requests must carry the new bearer token", file)


def _state(file: Path) -> tuple[int, ...] | None:
    """Return numbers that change with a file, its permissions included; None if there is no such file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns
