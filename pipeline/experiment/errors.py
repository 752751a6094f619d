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
