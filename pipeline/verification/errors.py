"""Errors of the verification."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class ServerAnswered(PipelineError):
    """The server responded with an error to a valid request."""

    url: str
    status: int
    text: str

    template: ClassVar[str] = "{url} answered {status} to an observation of the policy's space: {text}"


@dataclass(eq=False)
class ServesAnother(PipelineError):
    """The server serves another version than the one that is verified."""

    url: str
    found: str
    expected: str

    template: ClassVar[str] = (
        "{url} serves {found}, not {expected}: verify the version that it serves, or promote the one to verify"
    )


@dataclass(eq=False)
class VerificationFailed(PipelineError):
    """A registered version does not act as RLlib does with its checkpoint."""

    model_uri: str
    failures: Sequence[str]

    def __str__(self) -> str:
        return f"{self.model_uri} does not act as its checkpoint does: {'; '.join(self.failures)}. Do not promote it."
