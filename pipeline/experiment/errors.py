"""Errors of experiments."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class EpisodeInvalid(PipelineError):
    """An episode cannot be counted in an experiment."""

    index: int
    reason: str

    template: ClassVar[str] = "Episode {index} of the experiment cannot be counted: {reason}."


@dataclass(eq=False)
class RulesInvalid(PipelineError):
    """A rule of an experiment is out of its range."""

    rule: str
    value: object
    expected: str

    template: ClassVar[str] = "{rule} is {value!r}, expected {expected}."


@dataclass(eq=False)
class ReturnsUnclear(PipelineError):
    """A plan has no source of the champion's returns, or two."""

    template: ClassVar[str] = (
        "A plan needs the champion's returns from one source: recorded experience (--experience URI), or their mean "
        "and standard deviation (--return-mean and --return-std)."
    )


@dataclass(eq=False)
class ChampionNotRecorded(PipelineError):
    """No finished episodes of another version than the challenger are recorded."""

    uri: str
    model: str
    version: int

    template: ClassVar[str] = (
        "There are no whole episodes of '{model}' at {uri} with another version than {version}. After some have ended, "
        "run: python -m pipeline experience compact {uri}"
    )


@dataclass(eq=False)
class MarginZero(PipelineError):
    """The margin is 0, so no number of episodes shows that an equal challenger is not worse."""

    template: ClassVar[str] = (
        "The margin is 0, and no number of episodes can show that an equal challenger is not worse. Pass the loss that "
        "is acceptable as a number, such as --margin 5, or as a percentage of a mean return that is not 0."
    )


@dataclass(eq=False)
class ExperimentUnknown(PipelineError):
    """No experiment runs on a target."""

    target: str
    model: str

    template: ClassVar[str] = (
        "There is no experiment on the {target} of '{model}'. Start one: "
        "python -m pipeline experiment start VERSION --experience URI"
    )


@dataclass(eq=False)
class ExperimentRunning(PipelineError):
    """An experiment is running on a target already."""

    target: str
    model: str
    id: str
    challenger: int

    template: ClassVar[str] = (
        "The experiment {id} with version {challenger} is running on the {target} of '{model}'. Watch it: "
        "python -m pipeline experiment status; end it: python -m pipeline experiment stop"
    )


@dataclass(eq=False)
class ExperimentUnfinished(PipelineError):
    """The decision of an earlier experiment was written, and the controller was killed before it had acted on it."""

    target: str
    model: str
    id: str
    decision: str

    template: ClassVar[str] = (
        "The experiment {id} on the {target} of '{model}' is decided ({decision}), but not finished. Finish it: "
        "python -m pipeline experiment run"
    )


@dataclass(eq=False)
class NoChampion(PipelineError):
    """A target refers to no version, so there is nothing to compare a challenger with."""

    target: str
    model: str
    version: int

    template: ClassVar[str] = (
        "The {target} of '{model}' has no version to compare with version {version}. An experiment needs a champion: "
        "promote another version to the {target} first."
    )


@dataclass(eq=False)
class ChallengerIsChampion(PipelineError):
    """The challenger is the version that the target refers to."""

    target: str
    model: str
    version: int

    template: ClassVar[str] = "Version {version} of '{model}' is the champion: the {target} has it already."


@dataclass(eq=False)
class SpacesDiffer(PipelineError):
    """The challenger acts on other spaces than the champion."""

    version: int
    champion: int
    differences: str

    template: ClassVar[str] = "Version {version} cannot answer the episodes of version {champion}: {differences}."


@dataclass(eq=False)
class StepsInvalid(PipelineError):
    """The shares of an experiment do not rise, or leave no episodes for one of the arms."""

    shares: str

    template: ClassVar[str] = "The shares are {shares}, expected rising numbers between 0 and 1, such as 0.01,0.1,0.5."


@dataclass(eq=False)
class StartContested(PipelineError):
    """Another experiment was started at the same moment."""

    target: str
    model: str

    template: ClassVar[str] = (
        "Another experiment on the {target} of '{model}' was started at the same moment, and this one was not."
    )
