"""Errors of the measurement of drift."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class ReferenceMissing(PipelineError):
    """A version has no reference.json."""

    model: str
    version: int

    template: ClassVar[str] = (
        "Version {version} of '{model}' has no reference.json, because an earlier release registered it. Pass "
        "--play 100 to play that many episodes in its environment for the comparison. Versions that are trained from "
        "now on have one."
    )


@dataclass(eq=False)
class ReferenceChanged(PipelineError):
    """The reference.json of a version is not the one that was registered."""

    model: str
    version: int

    template: ClassVar[str] = (
        "reference.json of version {version} of '{model}' does not have the sha256 that was registered. Restore it "
        "from a backup of the artifact store."
    )


@dataclass(eq=False)
class ReferenceUnavailable(PipelineError):
    """The reference.json of a version cannot be downloaded."""

    model: str
    version: int
    reason: str

    template: ClassVar[str] = "reference.json of version {version} of '{model}' cannot be downloaded: {reason}"


@dataclass(eq=False)
class ReferenceDiffers(PipelineError):
    """The recorded observations do not have the dimensions of the reference."""

    model: str
    version: int

    template: ClassVar[str] = (
        "The observations recorded of version {version} of '{model}' do not have the dimensions of its reference.json. "
        "Was another model of this name recorded at the URI?"
    )


@dataclass(eq=False)
class ObservationsNotRecorded(PipelineError):
    """Experience was recorded without observations, or with hashes of them."""

    uri: str

    template: ClassVar[str] = (
        "The experience at {uri} has no observations. Start the server with --experience-observations full, which is "
        "the default."
    )


@dataclass(eq=False)
class EpisodesTooFew(PipelineError):
    """There are not enough episodes for a comparison at the level alpha."""

    version: int
    episodes: int
    left_out: str
    alpha: float

    template: ClassVar[str] = (
        "Greedy whole episodes of version {version}: {episodes}{left_out}. That is too few to find a difference at "
        "alpha {alpha:g}. Record more, widen --window-hours, or run: python -m pipeline experience compact"
    )


@dataclass(eq=False)
class MetricsFileUnwritable(PipelineError):
    """The file for Prometheus cannot be written."""

    file: str
    reason: str

    template: ClassVar[str] = "{file} cannot be written: {reason}. Choose another one with --metrics-file."
