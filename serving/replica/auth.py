"""Who may ask: whoever sends the bearer token, where one is asked for (RFC 6750, section 2.1)."""

import hmac
import re
from collections.abc import Iterable
from pathlib import Path

from serving.replica.errors import TokenFileInvalid, Unauthorized

OPEN_PATHS = frozenset({"/health", "/ping", "/v2/health/live", "/v2/health/ready", "/play", "/docs"})
"""What asks no token: load balancers and probes have none; the pages hold nothing, and ask for it themselves."""

CHALLENGE = (b"www-authenticate", b"Bearer")

B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""What a token may consist of."""


def read_token(file: str | Path) -> str:
    """Return the token in a file, without the space around it. Raises TokenFileInvalid."""
    try:
        token = Path(file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not ASCII text"
        raise TokenFileInvalid(str(file), reason) from error
    if not B64TOKEN.fullmatch(token):
        raise TokenFileInvalid(str(file), "it holds no token" if token else "it is empty")
    return token


class BearerToken:
    """The token that requests must bring. It never appears in a log or an answer."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()

    def __repr__(self) -> str:
        return "BearerToken(...)"

    def check(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Let a request pass that brings the token, or asks for an open path. Raises Unauthorized."""
        if path in OPEN_PATHS:
            return
        found = dict(headers).get(b"authorization", b"")
        scheme, _, credentials = found.partition(b" ")
        # compare_digest takes as long for a token that is nearly right as for one that is all wrong.
        if scheme.lower() != b"bearer" or not hmac.compare_digest(credentials.strip(), self._token):
            raise Unauthorized(given=bool(found))
