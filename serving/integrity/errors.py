"""Reasons why nobody whom the server trusts vouches for a version."""

from dataclasses import dataclass

from serving.policy.errors import BundleError

_SIGN = "If you trust it: python -m pipeline sign {version} --name '{name}' --signing-key FILE"


@dataclass(eq=False)
class TrustedKeyInvalid(BundleError):
    """A file of trusted keys cannot be read or holds something else."""

    code = "trusted_key_invalid"
    template = (
        "cannot read ed25519 public keys from {file}: {reason}. Make one of a signing key: "
        "openssl pkey -in SIGNING_KEY -pubout -out {file}"
    )

    file: str
    reason: str


@dataclass(eq=False)
class SignatureMissing(BundleError):
    """The version is not signed, and the server demands a signature."""

    code = "signature_missing"
    template = f"version {{version}} of '{{name}}' is not signed, and only signed versions are trusted. {_SIGN}"

    name: str
    version: int


@dataclass(eq=False)
class SignatureUntrusted(BundleError):
    """The version is signed, but with none of the trusted keys."""

    code = "signature_untrusted"
    template = (
        "version {version} of '{name}' is signed with the key {found}, which is not trusted (trusted: {trusted}). "
        f"{_SIGN}, or trust the key"
    )

    name: str
    version: int
    found: str
    trusted: str


@dataclass(eq=False)
class SignatureInvalid(BundleError):
    """A signature was changed, or is none of the key that it names."""

    code = "signature_invalid"
    template = "the tag '{tag}' of version {version} of '{name}' is not a signature of this key: {reason}"

    name: str
    version: int
    tag: str
    reason: str


@dataclass(eq=False)
class SignatureOfAnotherVersion(BundleError):
    """The signature is genuine, but of another model, version or content."""

    code = "signature_of_another_version"
    template = "the tag '{tag}' of version {version} of '{name}' is a signature of another version: {difference}"

    name: str
    version: int
    tag: str
    difference: str


@dataclass(eq=False)
class GateNotPassed(BundleError):
    """The server demands that the version passed the gate, and no trusted record says so."""

    code = "gate_not_passed"
    template = (
        "version {version} of '{name}' may not be served before it has passed the gate: {reason}. "
        "Promote it: python -m pipeline promote {version} --name '{name}'{options}"
    )

    name: str
    version: int
    reason: str
    options: str
