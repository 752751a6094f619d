"""Errors of joining a Ray cluster, and of its resources."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class NotEnoughResources(PipelineError):
    """Training needs more CPUs or GPUs than Ray has, and would wait for them forever."""

    resource: str
    needed: float
    available: float
    settings: str

    template: ClassVar[str] = (
        "Training needs {needed:g} {resource} ({settings}), and Ray has {available:g}. "
        "Lower these settings, or join a Ray cluster that has enough: --address"
    )


@dataclass(eq=False)
class ClusterUnreachable(PipelineError):
    """No Ray cluster accepts this process at the address."""

    address: str
    reason: str

    template: ClassVar[str] = (
        "Cannot join the Ray cluster at {address}: {reason}. If it requires a token, set RAY_AUTH_MODE=token and "
        "RAY_AUTH_TOKEN."
    )
