"""Errors of recorded experience."""

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import PipelineError


@dataclass(eq=False)
class NoExperience(PipelineError):
    """There is no recorded experience at a URI."""

    uri: str
    reason: str

    template: ClassVar[str] = (
        "There is no experience at {uri}: {reason}. Pass the URI that the server records to (--experience-uri), "
        "after it has recorded for some seconds."
    )


@dataclass(eq=False)
class ModelNotRecorded(PipelineError):
    """No experience of a model is recorded at a URI."""

    uri: str
    model: str
    models: str

    template: ClassVar[str] = "There is no experience of the model '{model}' at {uri}; there is of: {models}."


@dataclass(eq=False)
class SeveralModels(PipelineError):
    """Experience of several models is recorded at a URI, and none was chosen."""

    uri: str
    models: str

    template: ClassVar[str] = "{uri} has experience of several models. Choose one with --model: {models}."


@dataclass(eq=False)
class NotCompacted(PipelineError):
    """There are no whole episodes of a model yet."""

    uri: str
    model: str

    template: ClassVar[str] = (
        "There are no whole episodes of '{model}' at {uri} yet. Run: python -m pipeline experience compact {uri}"
    )


@dataclass(eq=False)
class VersionNotRecorded(PipelineError):
    """There are no whole episodes of a version."""

    model: str
    version: int
    versions: str

    template: ClassVar[str] = (
        "There are no whole episodes of version {version} of '{model}'; there are of: {versions}. Those recorded "
        "since the last compaction count after another one: python -m pipeline experience compact URI"
    )


@dataclass(eq=False)
class EpisodesReplaced(PipelineError):
    """A file of whole episodes is gone: a newer compaction has replaced them."""

    path: str

    template: ClassVar[str] = "{path} is gone: the experience was compacted again meanwhile. Run the command again."


@dataclass(eq=False)
class ExperienceDamaged(PipelineError):
    """A file of recorded experience is not what it was when it was written."""

    path: str
    reason: str

    template: ClassVar[str] = "{path} is damaged: {reason}. Run: python -m pipeline experience compact"


@dataclass(eq=False)
class RawDamaged(ExperienceDamaged):
    """A file that a server recorded, or the manifest of its segment, is not what it was. No compaction mends that."""

    template: ClassVar[str] = (
        "{path} is damaged: {reason}. Restore it from a backup. To do without it, delete the manifest of its segment "
        "(in manifests/)."
    )


@dataclass(eq=False)
class ExperienceChanged(PipelineError):
    """Raw files were changed while they were compacted."""

    uri: str

    template: ClassVar[str] = (
        "Episodes at {uri} were forgotten while it was compacted, so nothing was written. Run the command again."
    )


@dataclass(eq=False)
class ScratchUnusable(PipelineError):
    """The directory for temporary files cannot be written."""

    directory: str
    reason: str

    template: ClassVar[str] = (
        "Temporary files cannot be written to {directory}: {reason}. Choose a directory with --scratch; it needs about "
        "twice the space of the raw files, without compression."
    )


@dataclass(eq=False)
class ForgettingUnfinished(PipelineError):
    """`forget` is at work on the raw files, or was interrupted."""

    uri: str

    template: ClassVar[str] = (
        "Episodes at {uri} are being forgotten, or that was interrupted. Run the same command again: "
        "python -m pipeline experience forget"
    )


@dataclass(eq=False)
class S3Unusable(PipelineError):
    """The S3 server of an experience URI cannot be reached, or rejects the request."""

    uri: str
    reason: str

    template: ClassVar[str] = (
        "{uri} cannot be used: {reason}. Check the bucket, the network, and the variables AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY and MLFLOW_S3_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3)."
    )
