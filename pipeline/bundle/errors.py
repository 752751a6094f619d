"""Errors of the bundle."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class ExportDiffers(PipelineError):
    """The exported graph and the checkpoint compute different outputs; nothing was registered."""

    quantity: str
    difference: float
    tolerance: float

    template: ClassVar[str] = (
        "The exported graph and the checkpoint disagree: {quantity} differ by {difference:.3g}, "
        "more than {tolerance:.3g}. Nothing was registered."
    )


@dataclass(eq=False)
class CheckpointDigestMissing(PipelineError):
    """A checkpoint has no recorded digest, as an earlier release made it."""

    owner: str

    template: ClassVar[str] = (
        "{owner} has no digest of its checkpoint, so a change could not be noticed, and reading a checkpoint runs the "
        "code in it. If you trust everyone who can write to the artifact store: --trust-checkpoint"
    )


@dataclass(eq=False)
class CheckpointChanged(PipelineError):
    """A file of a checkpoint is not the one that was recorded; nothing was read from it."""

    file: str
    owner: str

    template: ClassVar[str] = (
        "{file} of {owner} is not the file that was recorded: it was changed, added or removed since. Nothing was read "
        "from it. Find out who wrote to the artifact store before you use another version or run of it."
    )
