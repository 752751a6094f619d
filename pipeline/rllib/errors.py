"""Errors of Ray and RLlib."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class NotEnoughResources(PipelineError):
    """Ray would wait forever for processors that it does not have."""

    resource: str
    needed: float
    available: float
    settings: str

    template: ClassVar[str] = (
        "Training needs {needed:g} {resource} ({settings}), and there are {available:g}. "
        "Ask for fewer, or join a Ray cluster that has them: --address"
    )
