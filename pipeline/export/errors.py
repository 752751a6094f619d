"""Errors of the export to ONNX."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class ExportFailed(PipelineError):
    """The policy could not be translated into an ONNX graph."""

    reason: str

    template: ClassVar[str] = "The policy cannot be exported to ONNX, so it could not be served: {reason}"
