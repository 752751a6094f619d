"""Errors of Ray clusters, their resources, environment runners, and learning."""

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


@dataclass(eq=False)
class EnvRunnerFailed(PipelineError):
    """A remote environment runner raised an exception that no environment raised."""

    exception: str
    reason: str

    template: ClassVar[str] = "An environment runner failed: {exception}: {reason}"


@dataclass(eq=False)
class EnvRunnersLost(PipelineError):
    """The processes of all environment runners ended again and again, or did not come back."""

    losses: int
    seconds: float

    template: ClassVar[str] = (
        "All environment runners were lost {losses} times within {seconds:.0f} s, without a sample between. Their "
        "environment may end its process or exceed the memory; --num-env-runners 0 steps it in this process."
    )


@dataclass(eq=False)
class GradientsNotFinite(PipelineError):
    """The gradients of several iterations in a row were not finite, so that training would change nothing."""

    iterations: int
    return_mean_100: float

    template: ClassVar[str] = (
        "PPO does not learn: its gradients were NaN or infinite in {iterations} iterations in a row. Rewards or "
        "observations may be too large for float32 (the mean return is {return_mean_100:.3g}): scale them with a "
        "wrapper (--wrapper module:Class), or lower --lr."
    )


@dataclass(eq=False)
class LearningDiverged(PipelineError):
    """The loss of learning from recorded experience, or a gradient of it, is not finite any more."""

    lr: float

    template: ClassVar[str] = (
        "Learning from the experience diverged: the loss or a gradient is not finite. Lower --offline-lr, which is "
        "{lr:g}, or --reward-scale."
    )


@dataclass(eq=False)
class RecurrentUnsupported(PipelineError):
    """A policy with memory would learn from recorded experience."""

    template: ClassVar[str] = (
        "Recurrent policies cannot learn from recorded experience: the recorded states are those of another network. "
        "Use a network without memory, or train in the environment."
    )
