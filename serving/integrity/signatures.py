"""Signatures of statements: ed25519 (RFC 8032), as a tag's value and with the keys that verify them.

The functions import `cryptography` themselves: the import takes a third of a second, and few servers need it.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from serving.integrity.errors import TrustedKeyInvalid

MAX_BYTES = 1 << 20
"""How much of a file of keys is read; a device may have no end."""

_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


def key_id(public_key: Any) -> str:
    """Return the id of a public key: the first 16 hex digits of the sha256 of its 32 bytes."""
    return hashlib.sha256(public_key.public_bytes_raw()).hexdigest()[:16]


def to_tag(statement: str, signature: bytes) -> str:
    """Return the value of a tag that holds a statement and its signature."""
    return json.dumps({"statement": statement, "signature": base64.b64encode(signature).decode()})


def signed_statement(tag: str, public_key: Any) -> str:
    """Return the statement in a tag if the key signed it. Raises ValueError with the reason if not."""
    from cryptography.exceptions import InvalidSignature

    try:
        content = json.loads(tag)
        statement, signature = content["statement"], base64.b64decode(content["signature"], validate=True)
        public_key.verify(signature, statement.encode())
    except InvalidSignature:
        raise ValueError("the signature does not fit the statement") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("it has another form") from None
    return str(statement)


def read_public_keys(files: Iterable[str]) -> dict[str, Any]:
    """Return the public keys in PEM files by their ids. A file may hold several, for the time of a change of keys.

    Raises:
        TrustedKeyInvalid: a file cannot be read, holds no key, or another kind of key.
    """
    keys = {}
    for file in files:
        for key in _keys_of(file):
            keys[key_id(key)] = key
    return keys


def _keys_of(file: str) -> list[Any]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        with Path(file).open("rb") as opened:
            content = opened.read(MAX_BYTES)
    except OSError as error:
        raise TrustedKeyInvalid(file, error.strerror or str(error)) from error
    keys = []
    for block in _PEM_BLOCK.finditer(content):
        kind = block[1].decode()
        if kind != "PUBLIC KEY":
            raise TrustedKeyInvalid(file, f"it holds a {kind}")
        try:
            key = load_pem_public_key(block[0])
        except Exception as error:  # cryptography raises exceptions of several kinds
            raise TrustedKeyInvalid(file, "it holds a damaged key") from error
        if not isinstance(key, Ed25519PublicKey):
            raise TrustedKeyInvalid(file, "it holds a key of another algorithm")
        keys.append(key)
    if not keys:
        raise TrustedKeyInvalid(file, "it holds no key in PEM")
    return keys
