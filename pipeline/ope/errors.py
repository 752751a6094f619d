"""Errors of off-policy evaluation."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class NoUsableEpisodes(PipelineError):
    """No recorded episode can be used."""

    model: str
    reasons: str

    template: ClassVar[str] = "No recorded episode of '{model}' can be used: {reasons}."


@dataclass(eq=False)
class OtherSpaces(PipelineError):
    """A version observes or does something else than the versions that were recorded."""

    model: str
    version: int
    role: str
    found: str
    recorded: str

    template: ClassVar[str] = (
        "Version {version} of '{model}' cannot be judged from these episodes: its {role} space is {found}, that of the "
        "recorded version is {recorded}."
    )


@dataclass(eq=False)
class RecurrentTarget(PipelineError):
    """A version has a state, and recorded observations do not determine what it would do."""

    model: str
    version: int

    template: ClassVar[str] = (
        "Version {version} of '{model}' is recurrent. Its actions depend on a state that other actions would have led "
        "to, so recorded observations do not say what it would do."
    )


@dataclass(eq=False)
class DistributionUnknown(PipelineError):
    """A version's graph does not compute the inputs of its actions' distribution."""

    model: str
    version: int

    template: ClassVar[str] = (
        "The graph of version {version} of '{model}' has no output action_dist_inputs, so the probabilities of its "
        "actions are unknown. An earlier release made it; register the version again with this one."
    )


@dataclass(eq=False)
class OtherModel(PipelineError):
    """The version to compare with belongs to another registered model."""

    model: str
    other: str

    template: ClassVar[str] = "--against is a version of '{other}', but the episodes are compared with '{model}'."
