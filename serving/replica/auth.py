"""Authentication by a bearer token (RFC 6750, section 2.1)."""

import hmac
from collections.abc import Iterable

from serving.replica.errors import Unauthorized

OPEN_PATHS = frozenset({"/health", "/ping", "/v2/health/live", "/v2/health/ready", "/play", "/docs"})
"""Paths that need no token: load balancers and probes have none, and the two pages contain no data and ask for it."""


class BearerToken:
    """The token that requests must carry. It never appears in a log or a response."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def __repr__(self) -> str:
        return "BearerToken(...)"

    def check(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise Unauthorized unless the path is open or the headers carry the token."""
        if path in OPEN_PATHS:
            return
        authorization = dict(headers).get(b"authorization", b"")
        scheme, _, credentials = authorization.partition(b" ")
        # compare_digest runs in constant time, so that the response time reveals nothing about the token.
        if scheme.lower() != b"bearer" or not hmac.compare_digest(credentials.strip(), self._token):
            raise Unauthorized(given=bool(authorization))
