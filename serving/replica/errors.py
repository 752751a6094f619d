"""Errors that a request can cause whatever its protocol: limits, compression, overload and authentication."""

from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import HttpError, RequestError

RETRY_AFTER = (b"retry-after", b"1")
"""The header that asks a client to wait one second before its next attempt."""


@dataclass(eq=False)
class BodyTooLarge(RequestError):
    """The body is larger than `limit` bytes."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "body_too_large"
    template = "the body is larger than {limit} bytes; {remedy}"

    limit: int
    remedy: str = "send fewer observations per request"


@dataclass(eq=False)
class ContentEncodingUnsupported(RequestError):
    """The body has a content coding other than those that the server decodes; `found` is its Content-Encoding."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "content_encoding_unsupported"

    found: str

    def __str__(self) -> str:
        return f'the content encoding is "{self.found[:100]}", expected gzip, deflate or none'

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Name the supported codings (RFC 9110, section 12.5.3)."""
        return ((b"accept-encoding", b"gzip, deflate"),)


@dataclass(eq=False)
class CompressionInvalid(RequestError):
    """The body is not compressed as its Content-Encoding declares, for the given reason."""

    status = HTTPStatus.BAD_REQUEST
    code = "compression_invalid"
    template = "the body is not valid {coding}: {reason}"

    coding: str
    reason: str


@dataclass(eq=False)
class Overloaded(HttpError):
    """The replica already holds `limit` requests, the maximum."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "overloaded"
    template = "the server already holds {limit} requests, its maximum; try again in a second"

    limit: int

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Ask the client to wait before its next attempt."""
        return (RETRY_AFTER,)


@dataclass(eq=False)
class ObservationsTooMany(RequestError):
    """The request holds `found` observations, more than `limit`."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "observations_too_many"
    template = "the request holds {found} observations, expected at most {limit}; send several requests"

    found: int
    limit: int


@dataclass(eq=False)
class AnswerTooLate(HttpError):
    """The policy did not compute the actions of a request within `limit_s` seconds."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "answer_too_late"
    template = "the policy did not answer within {limit_s:g} s; try again in a second"

    limit_s: float
    is_stuck: bool = False
    """Whether one call takes longer than its time limit. Then another version answers the request, if there is one."""

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Ask the client to wait before its next attempt."""
        return (RETRY_AFTER,)


@dataclass(eq=False)
class ComputationTooLong(RequestError):
    """The policy would take longer than `limit_s` seconds for the `found` observations of a request."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "computation_too_long"
    template = (
        "the policy takes longer than {limit_s:g} s for the {found} observations of the request; "
        "send at most {most} per request"
    )

    found: int
    limit_s: float
    most: int


@dataclass(eq=False)
class Unauthorized(RequestError):
    """The server requires a bearer token; the request has none, or a wrong one if `given`."""

    status = HTTPStatus.UNAUTHORIZED
    code = "unauthorized"

    given: bool

    def __str__(self) -> str:
        found = "a token other than the server's" if self.given else "no token"
        return f"the request has {found}; send the header Authorization: Bearer TOKEN"

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Name the authentication scheme (RFC 6750, section 3)."""
        return ((b"www-authenticate", b"Bearer"),)


@dataclass(eq=False)
class PinInvalid(RequestError):
    """The header `X-Pin-Version` is not the number of a version."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "pin_invalid"

    found: str

    def __str__(self) -> str:
        return f'X-Pin-Version is "{self.found[:100]}", expected the X-Model-Version of the episode\'s last answer'
