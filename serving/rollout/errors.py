"""Reasons why a new version is not brought into service."""

from dataclasses import dataclass

from serving.policy.errors import BundleError


@dataclass(eq=False)
class CandidateRefused(BundleError):
    """The bundle failed in the process where it was tried; `reason` says how."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class SpacesDiffer(BundleError):
    """The bundle expects another space than the clients of the one being served."""

    kind: str
    served: str
    found: str

    def __str__(self) -> str:
        return (
            f"its {self.kind} space is {self.found}, the one being served is {self.served}. Clients would break: "
            f"restart the server to serve it, or allow it with allow_space_change"
        )
