"""Errors of references."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class ReferenceUnreadable(PipelineError):
    """A reference.json does not have the content that this release reads."""

    reason: str

    template: ClassVar[str] = "reference.json cannot be read: {reason}. Use the release that registered the version."
