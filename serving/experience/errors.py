"""Errors of recording experience."""

from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import HttpError, ServingError


@dataclass(eq=False)
class ExperienceUriInvalid(ServingError):
    """The URI of a store of experience is of no kind that can be opened."""

    template = (
        "the experience URI '{uri}' is neither a local path, file:///PATH nor s3://BUCKET/PATH; credentials of S3 come "
        "from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
    )

    uri: str


@dataclass(eq=False)
class StoreUnavailable(ServingError):
    """The store of experience cannot be reached, read or written."""

    template = "the store of experience {uri} cannot be used: {reason}"

    uri: str
    reason: str


@dataclass(eq=False)
class KeyFileInvalid(ServingError):
    """The file with the key of episode hashes cannot be used."""

    template = "the key of episodes cannot be read from {file}: {reason}"

    file: str
    reason: str


@dataclass(eq=False)
class JournalFull(HttpError):
    """The decision cannot be recorded, and the server refuses to answer without a record."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "journal_full"
    template = (
        "the decision cannot be recorded, and the server answers none without a record (--experience-full refuse): "
        "the journal or its disk is full; try again in a second"
    )

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Ask the client to wait before its next attempt."""
        return ((b"retry-after", b"1"),)
