"""Errors of learning from recorded experience."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class OtherSpaces(PipelineError):
    """The experience was recorded with other observations or actions than those of the environment."""

    model: str
    role: str
    found: str
    environment: str
    expected: str

    template: ClassVar[str] = (
        "The experience of '{model}' does not fit {environment}: its {role} is {found}, expected {expected}. Name the "
        "environment that it was recorded in (--env-id, --wrapper), or a policy of it (--from)."
    )


@dataclass(eq=False)
class ValueInvalid(PipelineError):
    """A recorded value cannot be learned from."""

    role: str
    found: str
    episode: str
    step: int
    expected: str

    template: ClassVar[str] = (
        "The experience cannot be learned from: the {role} in step {step} of episode {episode} is {found}, expected "
        "{expected}. To leave the episode out, forget it: python -m pipeline experience forget"
    )


@dataclass(eq=False)
class RewardsMissing(PipelineError):
    """Nobody reported a reward, and the algorithm learns from rewards."""

    model: str
    episodes: int

    template: ClassVar[str] = (
        "None of the {episodes} episodes of '{model}' has a reported reward, and MARWIL learns from rewards. Let "
        "clients report them (POST /feedback), or imitate the recorded actions: --algorithm bc"
    )


@dataclass(eq=False)
class TooFewEpisodes(PipelineError):
    """Too few episodes can be learned from."""

    model: str
    found: int
    least: int
    left_out: str

    template: ClassVar[str] = (
        "Only {found} episodes of '{model}' can be learned from, expected at least {least}{left_out}. Let the server "
        "record more, and run: python -m pipeline experience compact"
    )


@dataclass(eq=False)
class ExperienceOutdated(PipelineError):
    """A training is to be resumed, and the episodes that it learned from were replaced."""

    uri: str
    expected: str
    found: str

    template: ClassVar[str] = (
        "The training learned from the episodes with digest {expected}; those at {uri} have digest {found}, because "
        "they were compacted again. It cannot be resumed. Start it again."
    )


@dataclass(eq=False)
class SettingsUnknown(PipelineError):
    """A registered policy has no settings that another training can take."""

    model_uri: str
    reason: str

    template: ClassVar[str] = (
        "The settings of {model_uri} cannot be read: {reason}. Without --from, give the environment and the network by "
        "options."
    )
