"""Errors of MLflow runs and their checkpoints."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class RelativeStore(PipelineError):
    """`mlflow run` was given a relative SQLite URI, which names another file in the project's directory."""

    uri: str
    directory: str

    template: ClassVar[str] = (
        "The tracking URI {uri} is relative, and the project runs in {directory}, where that file does "
        "not hold this run. Give an absolute one: MLFLOW_TRACKING_URI=sqlite:////absolute/path/to/mlflow.db"
    )


@dataclass(eq=False)
class NoCheckpoint(PipelineError):
    """A run has no complete checkpoint."""

    run_id: str

    template: ClassVar[str] = (
        "Run {run_id} has no complete checkpoint to resume from. Start a new one: python -m pipeline train"
    )


@dataclass(eq=False)
class NotResumable(PipelineError):
    """A run cannot be resumed."""

    run_id: str
    reason: str

    template: ClassVar[str] = "Run {run_id} cannot be resumed: {reason}"


@dataclass(eq=False)
class TrackingRefused(PipelineError):
    """MLflow, its artifact store, or a proxy before them refuses what a run sends."""

    what: str
    reason: str

    template: ClassVar[str] = "MLflow does not accept {what} ({reason})."


@dataclass(eq=False)
class TrackingFailed(PipelineError):
    """The tracking server is reachable, but has failed for so long that the command gives up."""

    what: str
    seconds: float
    reason: str

    template: ClassVar[str] = "MLflow has failed to take {what} for {seconds:.0f} s ({reason})."


@dataclass(eq=False)
class RunNotJoinable(PipelineError):
    """MLFLOW_RUN_ID, which `mlflow run` sets, names another run than that of this command."""

    run_id: str
    reason: str

    template: ClassVar[str] = (
        "MLFLOW_RUN_ID names the run {run_id}, which {reason}. To start a new run: unset MLFLOW_RUN_ID"
    )


@dataclass(eq=False)
class ExperimentUnusable(PipelineError):
    """No run can be started in the experiment that MLflow's variables name."""

    experiment: str
    reason: str

    template: ClassVar[str] = (
        "No run can be started in the experiment '{experiment}': {reason}. "
        "MLFLOW_EXPERIMENT_NAME names another one, which MLflow creates"
    )


@dataclass(eq=False)
class LoggedModelsUnsupported(PipelineError):
    """The tracking server has no logged models, with which policies are registered."""

    uri: str

    template: ClassVar[str] = (
        "The MLflow server at {uri} has no logged models (404 for /api/2.0/mlflow/logged-models), with which policies "
        "are registered. Update the server to MLflow 3, or let the gateway before it pass them"
    )


@dataclass(eq=False)
class RegistryApart(PipelineError):
    """The registry is an MLflow server that does not know the logged models of the tracking server."""

    registry: str
    tracking: str

    template: ClassVar[str] = (
        "The registry at {registry} cannot register what is trained at {tracking}: it is an MLflow server with another "
        "backend store, and MLflow registers only models that this store knows. Set MLFLOW_REGISTRY_URI to a server "
        "with the same backend store, or to a database, or unset it"
    )
