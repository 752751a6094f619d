"""What a server demands of a version before it reads any file of it."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from serving.integrity.errors import (
    GateNotPassed,
    SignatureInvalid,
    SignatureMissing,
    SignatureOfAnotherVersion,
    SignatureUntrusted,
)
from serving.integrity.signatures import read_public_keys, signed_statement
from serving.integrity.statements import (
    GATE,
    GATE_TAG,
    SIGNED_GATE_TAG,
    SIGNED_VERSION_TAG,
    VERSION,
    Subject,
    parsed,
)
from serving.registry.model_uri import ModelUri
from serving.registry.model_version import ModelVersion

Keys = Mapping[str, Any]
"""Public keys by their ids."""


@dataclass(frozen=True)
class Requirements:
    """Who must vouch for a version.

    Attributes:
        trusted_key_files: Files of public keys, one of which must have signed the version; none if it is empty. They
            are read at each check, so that a change of keys needs no restart.
        require_gate: Whether the version must have passed the gate of the stage or alias that the server follows. With
            trusted keys, one of them must have signed that.
    """

    trusted_key_files: tuple[str, ...] = ()
    require_gate: bool = False

    def check(self, version: ModelVersion) -> None:
        """Return if the version may be served, as far as its tags show. Its files are checked against its digests.

        Raises:
            TrustedKeyInvalid: the trusted keys cannot be read.
            SignatureMissing, SignatureUntrusted, SignatureInvalid, SignatureOfAnotherVersion: no trusted key vouches
                for it.
            GateNotPassed: it has not passed the gate, or no trusted key vouches for that.
        """
        keys = read_public_keys(self.trusted_key_files) if self.trusted_key_files else {}
        if self.trusted_key_files:
            require_signature(version, keys)
        if self.require_gate:
            _require_gate(version, keys)


def require_signature(version: ModelVersion, keys: Keys) -> None:
    """Return if one of the keys has signed the version. Raises as `Requirements.check`."""
    subject, tags = Subject.of(version), _tags(version, SIGNED_VERSION_TAG)
    failure: Exception | None = None
    for signer, tag in tags.items():
        if signer in keys:
            try:
                _require_signed(version, subject, f"{SIGNED_VERSION_TAG}{signer}", tag, keys[signer])
            except (SignatureInvalid, SignatureOfAnotherVersion) as error:
                failure = error
            else:
                return
    if failure is not None:
        raise failure
    if tags:
        raise SignatureUntrusted(version.name, version.version, ", ".join(sorted(tags)), ", ".join(sorted(keys)))
    raise SignatureMissing(version.name, version.version)


def _require_signed(version: ModelVersion, subject: Subject, name: str, tag: str, key: Any) -> None:
    try:
        statement = parsed(signed_statement(tag, key))
    except ValueError as error:
        raise SignatureInvalid(version.name, version.version, name, str(error)) from None
    difference = subject.difference(statement, VERSION)
    if difference is not None:
        raise SignatureOfAnotherVersion(version.name, version.version, name, difference)


def gate_results(version: ModelVersion, keys: Keys) -> dict[str, str]:
    """Return the statements of the gate about a version by their targets, such as `stage.Production`.

    With keys, only those that one of them signed. Of several about one target, one that says "passed" is returned.
    """
    subject, found = Subject.of(version), {}
    for text in _gate_statements(version, keys):
        try:
            statement = parsed(text)
        except ValueError:
            continue  # somebody has edited the tag
        target = str(statement.get("target"))
        if subject.difference(statement, GATE) is None and (target not in found or _passed(text)):
            found[target] = text
    return found


def _passed(statement: str) -> bool:
    return parsed(statement).get("passed") is True


def _require_gate(version: ModelVersion, keys: Keys) -> None:
    """Return if the version has passed the gate of the target that its URI names, or any gate. Raises GateNotPassed."""
    uri, results = ModelUri.parse(version.uri), gate_results(version, keys)
    target = _target(uri)
    relevant = list(results.values()) if target is None else [results[target]] if target in results else []
    if any(map(_passed, relevant)):
        return
    by_key = " signed with a trusted key" if keys else ""
    reason = "it was promoted in spite of objections" if relevant else f"no result{by_key} is recorded"
    where = "" if target is None else f" for {target.replace('.', ' ', 1)}"
    raise GateNotPassed(version.name, version.version, reason + where, _options(uri, signed=bool(keys)))


def _gate_statements(version: ModelVersion, keys: Keys) -> Iterator[str]:
    """Yield the statements in the gate's tags, of any version; with keys, only those that one of them signed."""
    if not keys:
        yield from _tags(version, GATE_TAG).values()
        return
    for rest, tag in _tags(version, SIGNED_GATE_TAG).items():
        key = keys.get(rest.rpartition(".")[2])
        if key is not None:
            try:
                yield signed_statement(tag, key)
            except ValueError:
                continue  # somebody has edited the tag


def _tags(version: ModelVersion, prefix: str) -> dict[str, str]:
    """Return the tags with a prefix, without it."""
    return {key.removeprefix(prefix): tag for key, tag in version.tags.items() if key.startswith(prefix)}


def _target(uri: ModelUri) -> str | None:
    """Return the stage or alias that a URI names, as statements of the gate do; None if it names neither."""
    if uri.alias is not None:
        return f"alias.{uri.alias}"
    return None if uri.stage is None else f"stage.{uri.stage}"


def _options(uri: ModelUri, *, signed: bool) -> str:
    """Return the further options of the command that promotes to the URI's target."""
    alias = "" if uri.alias is None else f" --alias {shlex.quote(uri.alias)}"
    return alias + (" --signing-key FILE" if signed else "")
