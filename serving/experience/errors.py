"""Errors of recording experience."""

from dataclasses import dataclass

from serving.errors import ServingError


@dataclass(eq=False)
class ExperienceUriInvalid(ServingError):
    """The URI of a store of experience is of no kind that can be opened."""

    template = "the experience URI '{uri}' is neither a local path, file:///PATH nor s3://BUCKET/PATH"

    uri: str


@dataclass(eq=False)
class StoreUnavailable(ServingError):
    """The store of experience cannot be reached, read or written."""

    template = "the store of experience {uri} cannot be used: {reason}"

    uri: str
    reason: str
