"""Errors of promotion and rollback."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class PromotionRefused(PipelineError):
    """The gate objects to a version; the registry is unchanged."""

    version: int
    target: str
    objections: Sequence[str]

    def __str__(self) -> str:
        reasons = "; ".join(self.objections)
        return f"Version {self.version} was not promoted to {self.target}: {reasons}. Use --force to promote it anyway."


@dataclass(eq=False)
class InvalidAlias(PipelineError):
    """MLflow does not accept the name of an alias."""

    alias: str

    template: ClassVar[str] = (
        "'{alias}' cannot be an alias, expected letters, digits, - and _, at most 200, and neither 'latest' nor 'v' "
        "with a number, which MLflow reserves."
    )


@dataclass(eq=False)
class NothingToRollBack(PipelineError):
    """A stage or alias referred to no earlier version, or none that still exists."""

    model: str
    target: str
    version: int | None

    def __str__(self) -> str:
        now = "no version" if self.version is None else f"version {self.version}"
        return (
            f"Cannot roll back {self.target} of '{self.model}': it refers to {now} now, "
            "and no version that it referred to before still exists."
        )


@dataclass(eq=False)
class SigningKeyInvalid(PipelineError):
    """The file of a signing key cannot be read, or holds something else."""

    file: str
    reason: str

    template: ClassVar[str] = (
        "Cannot read an ed25519 private key from {file}: {reason}. Make one: "
        "openssl genpkey -algorithm ed25519 -out {file}"
    )
