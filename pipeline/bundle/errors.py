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
