"""Errors of shadowing."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class NothingToShadow(PipelineError):
    """No decisions of other versions than the challenger are recorded."""

    uri: str
    model: str
    version: int

    template: ClassVar[str] = (
        "No decisions of '{model}' by another version than {version} are recorded at {uri}. Wait until a server has "
        "answered requests and its node has converted the journal, which takes some seconds."
    )


@dataclass(eq=False)
class ObservationsNotRecorded(PipelineError):
    """The newest decisions were recorded without observations, or with hashes of them."""

    uri: str

    template: ClassVar[str] = (
        "The newest decisions at {uri} have no observations, so no version can compute them again. Start the server "
        "with --experience-observations full, which is the default."
    )


@dataclass(eq=False)
class ChallengerDiffers(PipelineError):
    """The challenger does not have the spaces of the versions that are served."""

    challenger: int
    version: int
    difference: str

    template: ClassVar[str] = (
        "Version {challenger} cannot compute the decisions of version {version}: {difference}. Both must have the same "
        "observations and actions."
    )
