"""Errors of the settings of the policy's network."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class UnknownModelSetting(PipelineError):
    """A setting of `model_config` is unknown to RLlib, or has no effect on the policy."""

    setting: str
    reason: str

    template: ClassVar[str] = "model_config: '{setting}' {reason}"
