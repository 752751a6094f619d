"""Reads the bearer token (RFC 6750, section 2.1) of a server from a file."""

import re
from pathlib import Path

from serving.client.errors import TokenFileInvalid

B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""The syntax of a token."""

MAX_CHARACTERS = 1 << 16
"""How much of the file is read; a device may have no end."""


def read_token(file: str | Path) -> str:
    """Return the token in a file, without surrounding whitespace. Raises TokenFileInvalid."""
    try:
        with Path(file).open(encoding="ascii") as opened:
            token = opened.read(MAX_CHARACTERS).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "it is not ASCII text"
        raise TokenFileInvalid(str(file), reason) from error
    if not B64TOKEN.fullmatch(token):
        raise TokenFileInvalid(str(file), "its content is not a token" if token else "it is empty")
    return token
