"""Signs statements about versions with an ed25519 key, and records what the gate found.

The functions import `cryptography` themselves: most commands need no key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import mlflow

from pipeline.registry.errors import SigningKeyInvalid
from pipeline.registry.target import Target
from serving.integrity.requirements import gate_results
from serving.integrity.signatures import key_id, read_public_keys, to_tag
from serving.integrity.statements import GATE, GATE_TAG, SIGNED_GATE_TAG, SIGNED_VERSION_TAG, VERSION, Subject, parsed
from serving.registry.model_version import ModelVersion
from serving.registry.registry import fetch, resolve
from serving.registry.tracking import check_tracking_server

#: How much of a key's file is read; a device may have no end.
_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Signer:
    """A private key that signs statements. Its representation does not show the key."""

    key: Any = field(repr=False)

    @classmethod
    def read(cls, file: str) -> Self:
        """Return the signer of a PEM file, PKCS 8 without a password, as `openssl genpkey` writes it.

        Raises:
            SigningKeyInvalid: If the file cannot be read, or holds something else.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            with Path(file).open("rb") as opened:
                content = opened.read(_MAX_BYTES)
            key = load_pem_private_key(content, password=None)
        except OSError as error:
            raise SigningKeyInvalid(file, error.strerror or str(error)) from error
        except TypeError:
            raise SigningKeyInvalid(file, "it is encrypted, write a copy without a password") from None
        except Exception:  # noqa: BLE001  # cryptography raises exceptions of several kinds, which may show the content
            raise SigningKeyInvalid(file, "it holds no private key in PEM") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise SigningKeyInvalid(file, "it holds a key of another algorithm")
        return cls(key)

    @property
    def key_id(self) -> str:
        """The id of the public key, which the names of the tags contain."""
        return key_id(self.key.public_key())

    def signed(self, statement: str) -> str:
        """Return the value of a tag with a statement and its signature."""
        return to_tag(statement, self.key.sign(statement.encode()))


def sign_version(name: str, version: int, signer: Signer, trusted_keys: Sequence[str] = ()) -> int:
    """Sign a registered version, with the digests that the registry has of it now.

    Records of the gate that one of `trusted_keys` (files of public keys) signed are signed again: the signer vouches
    for them too. Those that nobody signed are not, because everyone with an account could have written them.

    Returns:
        The number of records that were signed again.

    Raises:
        TrackingServerUnreachable: If the tracking server does not respond within seconds.
        ModelUnknown, VersionMissing: If there is no such version.
        BundleError: If its files do not have their digests, or the trusted keys cannot be read.
    """
    check_tracking_server()
    keys = read_public_keys(trusted_keys)
    found = resolve(f"models:/{name}/{version}")
    fetch(found)
    subject = Subject.of(found)
    again = gate_results(found, keys) if keys else {}
    for target, statement in again.items():
        _set_tag(subject, f"{SIGNED_GATE_TAG}{target}.{signer.key_id}", signer.signed(statement))
    sign(subject, signer)
    return len(again)


def sign(subject: Subject, signer: Signer) -> None:
    """Sign a version: set the tag that servers with this trusted key demand. A repetition replaces the signature."""
    statement = subject.statement(VERSION, {"at": _now()})
    _set_tag(subject, SIGNED_VERSION_TAG + signer.key_id, signer.signed(statement))


def record_gate(
    subject: Subject, target: Target, facts: Mapping[str, Any], signer: Signer | None, *, passed: bool
) -> None:
    """Record in tags of a version whether it passed the gate of a target, and sign that with the key of a signer.

    Args:
        subject: The version.
        target: The stage or alias that the gate guards.
        facts: The settings of the gate and the figures of the comparison.
        signer: Signs the record if it is given.
        passed: Whether the gate had no objection.
    """
    name = _name(target)
    statement = subject.statement(GATE, {**facts, "target": name, "passed": passed, "at": _now()})
    if signer is not None:
        _set_tag(subject, f"{SIGNED_GATE_TAG}{name}.{signer.key_id}", signer.signed(statement))
    _set_tag(subject, GATE_TAG + name, statement)


def has_passed(version: ModelVersion, target: Target, signer: Signer | None) -> bool:
    """Return whether a record in a version's tags, with a signer one that it signed, says it passed a target's gate."""
    keys = {} if signer is None else {signer.key_id: signer.key.public_key()}
    statement = gate_results(version, keys).get(_name(target))
    return statement is not None and parsed(statement).get("passed") is True


def is_unrecorded(version: ModelVersion, target: Target, signer: Signer | None) -> bool:
    """Return whether no record of the gate of a target is in a version's tags: with a signer, none that it signed."""
    keys = {} if signer is None else {signer.key_id: signer.key.public_key()}
    return _name(target) not in gate_results(version, keys)


def _name(target: Target) -> str:
    """Return a target as records of the gate name it."""
    return f"{'alias' if target.is_alias else 'stage'}.{target.name}"


def _set_tag(subject: Subject, name: str, value: str) -> None:
    mlflow.MlflowClient().set_model_version_tag(subject.name, str(subject.version), name, value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
