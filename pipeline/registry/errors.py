"""Errors of promotion and rollback."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import PipelineError


@dataclass(eq=False)
class PromotionRefused(PipelineError):
    """The gate objects to a version; the registry is as it was."""

    version: int
    slot: str
    objections: Sequence[str]

    def __str__(self) -> str:
        return (
            f"Version {self.version} was not promoted to {self.slot}: {'; '.join(self.objections)}. --force overrides."
        )


@dataclass(eq=False)
class NothingToRollBack(PipelineError):
    """No other version stood in a stage or behind an alias, or none that still exists."""

    model: str
    slot: str
    version: int | None

    def __str__(self) -> str:
        now = "it is empty now" if self.version is None else f"version {self.version} stands there now"
        return (
            f"Nothing to roll back to in {self.slot} of '{self.model}': {now}, and none that still exists stood before."
        )
