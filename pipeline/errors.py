"""What can go wrong in the pipeline. Each error keeps its data in fields and says what to do next."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class PipelineError(Exception):
    """A failure that a person can act on; its text is one line that says how."""


@dataclass(eq=False)
class InvalidConfig(PipelineError):
    """A training setting is out of its range."""

    setting: str
    value: object
    expected: str

    def __str__(self) -> str:
        return f"{self.setting} is {self.value!r}, expected {self.expected}."


@dataclass(eq=False)
class UnknownSetting(PipelineError):
    """There is no training setting of this name."""

    setting: str
    nearest: str

    def __str__(self) -> str:
        return f"There is no setting '{self.setting}'; the nearest is '{self.nearest}'."


@dataclass(eq=False)
class NotSearchable(PipelineError):
    """A search was to draw a setting that its trials have to share."""

    setting: str

    def __str__(self) -> str:
        return f"'{self.setting}' cannot be searched: every trial has the same. Put it under 'settings'."


@dataclass(eq=False)
class NothingFound(PipelineError):
    """No trial of a search was evaluated, so there is no best one."""

    run_id: str
    trials: int
    failed: int

    def __str__(self) -> str:
        found = f"None of {self.trials} trials was evaluated, {self.failed} failed; nothing was registered. "
        if self.failed:
            return found + f"Why stands in the runs below {self.run_id}, as the tag 'trial.error'."
        return found + "The time was up before the first evaluation: raise --time-budget-s."


@dataclass(eq=False)
class UnreadableConfig(PipelineError):
    """A file of training settings is no YAML mapping."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file} holds no training settings: {self.reason}"


@dataclass(eq=False)
class EnvironmentNotFound(PipelineError):
    """Gymnasium has no environment of this id, or could not build it."""

    env_id: str
    reason: str

    def __str__(self) -> str:
        return (
            f"No environment '{self.env_id}': {self.reason} Give the id of a Gymnasium environment, as 'CartPole-v1', "
            "or 'module:Id' for one that a module registers."
        )


@dataclass(eq=False)
class EnvKwargsRefused(PipelineError):
    """An environment cannot be made with the keyword arguments that it was to be made with."""

    env_id: str
    kwargs: Mapping[str, object]
    reason: str

    def __str__(self) -> str:
        return (
            f"'{self.env_id}' cannot be made with env_kwargs {json.dumps(self.kwargs, default=str)}: {self.reason} "
            "Give what its constructor takes."
        )


@dataclass(eq=False)
class UnsupportedSpace(PipelineError):
    """PPO cannot train on a space of this kind, or its policy could not be exported."""

    role: str
    space: str
    reason: str
    supported: str

    def __str__(self) -> str:
        return f"The {self.role} space {self.space} is not supported: {self.reason}. Expected {self.supported}."


@dataclass(eq=False)
class NoSuchObject(PipelineError):
    """A dotted name names nothing that can be imported."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"'{self.name}' cannot be imported: {self.reason} Name a class as module:Class."


@dataclass(eq=False)
class UnknownModelSetting(PipelineError):
    """RLlib has no model setting of this name, or the policy that is trained would not read it."""

    setting: str
    reason: str

    def __str__(self) -> str:
        return f"model_config: '{self.setting}' {self.reason}"


@dataclass(eq=False)
class ServerAnswered(PipelineError):
    """A server answered with an error, where an action was expected."""

    url: str
    status: int
    text: str

    def __str__(self) -> str:
        return f"{self.url} answered {self.status} to an observation of the policy's space: {self.text}"


@dataclass(eq=False)
class ServesAnother(PipelineError):
    """A server that is verified serves something else."""

    url: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.url} serves {self.found}, not {self.expected}: verify what it serves, or promote what you verify"


@dataclass(eq=False)
class VerificationFailed(PipelineError):
    """A registered version does not act as RLlib would with its checkpoint."""

    model_uri: str
    failures: Sequence[str]

    def __str__(self) -> str:
        return f"{self.model_uri} does not act as its checkpoint does: {'; '.join(self.failures)}. Do not promote it."


@dataclass(eq=False)
class ExportFailed(PipelineError):
    """The policy could not be turned into an ONNX graph."""

    reason: str

    def __str__(self) -> str:
        return f"The policy cannot be exported to ONNX, so it could not be served: {self.reason}"


@dataclass(eq=False)
class ExportDiffers(PipelineError):
    """The exported graph does not compute what the checkpoint computes; nothing was registered."""

    quantity: str
    difference: float
    tolerance: float

    def __str__(self) -> str:
        return (
            f"The exported graph and the checkpoint disagree: {self.quantity} differ by {self.difference:.3g}, "
            f"more than {self.tolerance:.3g}. Nothing was registered."
        )


@dataclass(eq=False)
class NotEnoughResources(PipelineError):
    """Ray would wait for ever for processors that are not there."""

    resource: str
    needed: float
    available: float
    settings: str

    def __str__(self) -> str:
        return (
            f"Training needs {self.needed:g} {self.resource} ({self.settings}), and there are {self.available:g}. "
            "Ask for fewer, or join a Ray cluster that has them: --address"
        )


@dataclass(eq=False)
class RelativeStore(PipelineError):
    """`mlflow run` was given a relative SQLite URI, which means another file in the project's directory."""

    uri: str
    directory: str

    def __str__(self) -> str:
        return (
            f"The tracking URI {self.uri} is relative, and the project runs in {self.directory}, where that file does "
            "not hold this run. Give an absolute one: MLFLOW_TRACKING_URI=sqlite:////absolute/path/to/mlflow.db"
        )


@dataclass(eq=False)
class NoCheckpoint(PipelineError):
    """A run has no whole checkpoint to go on from."""

    run_id: str

    def __str__(self) -> str:
        return f"Run {self.run_id} has no whole checkpoint to resume from. Start a new one: python -m pipeline train"


@dataclass(eq=False)
class NotResumable(PipelineError):
    """A run cannot be gone on with."""

    run_id: str
    reason: str

    def __str__(self) -> str:
        return f"Run {self.run_id} cannot be resumed: {self.reason}"


@dataclass(eq=False)
class CannotContinueFrom(PipelineError):
    """A registered policy does not fit what is to be trained."""

    model_uri: str
    reason: str

    def __str__(self) -> str:
        return f"Training cannot start from {self.model_uri}: {self.reason}"


@dataclass(eq=False)
class PromotionRefused(PipelineError):
    """The gate objects to a version; the registry is as it was."""

    version: int
    slot: str
    objections: Sequence[str]

    def __str__(self) -> str:
        return (
            f"Version {self.version} was not promoted to {self.slot}: {'; '.join(self.objections)}. --force overrides."
        )


@dataclass(eq=False)
class NothingToRollBack(PipelineError):
    """No other version stood in a stage or behind an alias, or none that still exists."""

    model: str
    slot: str
    version: int | None

    def __str__(self) -> str:
        now = "it is empty now" if self.version is None else f"version {self.version} stands there now"
        return (
            f"Nothing to roll back to in {self.slot} of '{self.model}': {now}, and none that still exists stood before."
        )


@dataclass(eq=False)
class PortTaken(PipelineError):
    """Something listens on a port that `make run` needs."""

    port: int
    setting: str

    def __str__(self) -> str:
        return f"Port {self.port} is taken. Choose another: make run {self.setting}=PORT"


@dataclass(eq=False)
class CommandFailed(PipelineError):
    """A command of the journey ended with an exit status other than 0, or a server ended at all."""

    command: str
    status: int

    def __str__(self) -> str:
        return f"`{self.command}` ended with exit status {self.status}."


@dataclass(eq=False)
class NotReady(PipelineError):
    """A server was started, and did not answer."""

    url: str
    timeout_s: float

    def __str__(self) -> str:
        return f"Nothing answered at {self.url} within {self.timeout_s:.0f} s."


@dataclass(eq=False)
class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM ended the command; no `except Exception` of a library may swallow it."""

    signal_name: str

    def __str__(self) -> str:
        return f"Interrupted by {self.signal_name}."
