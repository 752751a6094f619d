"""Signing keys, and the files that servers and commands read them from."""

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pipeline.registry.signing import Signer


def signer() -> Signer:
    return Signer(Ed25519PrivateKey.generate())


def private_pem(key: Any) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def public_pem(*signers: Signer) -> bytes:
    keys = (each.key.public_key() for each in signers)
    return b"".join(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys)


def trusted(directory: Path, *signers: Signer) -> str:
    """Return the path of a file with the public keys of the signers."""
    file = directory / f"trusted-{'-'.join(each.key_id for each in signers)}.pem"
    file.write_bytes(public_pem(*signers))
    return str(file)
