"""Errors of reporting the online return."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class ModelNotRegistered(PipelineError):
    """Experience of a model is recorded that MLflow's registry does not have."""

    model: str
    registry: str

    template: ClassVar[str] = (
        "There is no registered model '{model}' at {registry}, only its experience. Set MLFLOW_TRACKING_URI, or pass "
        "--registry-uri."
    )
