"""Reasons not to bring a new version into service."""

from dataclasses import dataclass

from serving.policy.errors import BundleError


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
