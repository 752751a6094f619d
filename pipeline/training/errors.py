"""Errors of a training run."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class CannotContinueFrom(PipelineError):
    """A registered policy does not fit the training that would start from it."""

    model_uri: str
    reason: str

    template: ClassVar[str] = "Training cannot start from {model_uri}: {reason}"
