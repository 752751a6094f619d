"""Reasons not to bring a new version into service."""

from dataclasses import dataclass

from serving.integrity.errors import SignatureUntrusted, TrustedKeyInvalid
from serving.policy.errors import BundleError, BundleFileMissing, ProviderUnavailable
from serving.registry.errors import CacheUnwritable, RegistryError

TRANSIENT = (
    BundleFileMissing,
    CacheUnwritable,
    ProviderUnavailable,
    RegistryError,
    SignatureUntrusted,
    TrustedKeyInvalid,
)
"""Errors after which the same version is tried again: the registry may be down, the disk full, the GPU gone, or the
files of trusted keys outdated."""


@dataclass(eq=False)
class CandidateRejected(BundleError):
    """The bundle failed its trial in a child process."""

    code = "candidate_refused"
    template = "{reason}"

    reason: str


@dataclass(eq=False)
class VersionRefused(BundleError):
    """The version was served before and failed."""

    code = "version_refused"
    template = "version {version} failed in service: {reason}"

    version: int
    reason: str


@dataclass(eq=False)
class SpacesDiffer(BundleError):
    """The new version has another observation or action space than the served one."""

    code = "spaces_differ"
    template = (
        "its {kind} space is {found}, that of the served version is {served}. Clients would break: restart the server "
        "to serve it, or set allow_space_change"
    )

    kind: str
    served: str
    found: str


@dataclass(eq=False)
class ArmsDiffer(SpacesDiffer):
    """The challenger of an experiment has another observation or action space than the champion."""

    template = "its {kind} space is {found}, that of the champion is {served}: both must act on the same spaces"
