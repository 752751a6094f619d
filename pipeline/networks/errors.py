"""Errors of the policy's network."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class UnknownModelSetting(PipelineError):
    """RLlib has no model setting of this name, or the policy that is trained would not read it."""

    setting: str
    reason: str

    template: ClassVar[str] = "model_config: '{setting}' {reason}"
