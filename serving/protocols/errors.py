"""Errors in a request that more than one protocol can raise: in its body, observations, path or method."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar

from serving.errors import RequestError


@dataclass(eq=False)
class RequestPartError(RequestError):
    """Base of the errors in one part of a request: what was found at `path`, and what was expected there.

    The path is a place in the request, such as `observations[3].arm.position`.
    """

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    verb: ClassVar[str] = "is"

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        place = f"{self.path}:" if "." in self.path else f"{self.path} {self.verb}"
        return f"{place} {self.found}, expected {self.expected}"


@dataclass(eq=False)
class BodyNotJson(RequestError):
    """The body is not JSON, for the parser's reason."""

    status = HTTPStatus.BAD_REQUEST
    code = "body_not_json"
    template = 'the body is not JSON: {reason}; send {{"observation": [...]}}'

    reason: str


@dataclass(eq=False)
class BodyNotObject(RequestError):
    """The body is JSON, but not an object; `found` describes it."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "body_not_object"
    template = 'the body is {found}, expected an object like {{"observation": [...]}}'

    found: str


@dataclass(eq=False)
class ObservationMissing(RequestError):
    """The request has neither `observation` nor `observations`; `found` lists its keys."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_missing"
    template = 'the request has {found}, expected "observation" (one) or "observations" (a list of them)'

    found: str


@dataclass(eq=False)
class ObservationAmbiguous(RequestError):
    """The request has both `observation` and `observations`."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_ambiguous"
    template = 'the request has both "observation" and "observations", expected one of them'


@dataclass(eq=False)
class KeyUnknown(RequestError):
    """The request has a key that is none of `known`."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "key_unknown"
    template = 'the request has an unknown key "{key}", expected only {known}'

    key: str
    known: str


class ObservationShape(RequestPartError):
    """The shape of an observation differs from that of the space."""

    code = "observation_shape"
    verb = "has"


class ObservationType(RequestPartError):
    """The type of a value does not fit the space."""

    code = "observation_type"


class ObservationRange(RequestPartError):
    """An integer is outside of a Discrete, MultiDiscrete or MultiBinary space."""

    code = "observation_range"


class ObservationNotFinite(RequestPartError):
    """A value is NaN, infinite, or too large for the space's dtype."""

    code = "observation_not_finite"


class ObservationKeyMissing(RequestPartError):
    """An object lacks a key of the Dict space."""

    code = "observation_key_missing"
    verb = "has"


class ObservationKeyUnknown(RequestPartError):
    """An object has a key that the Dict space lacks."""

    code = "observation_key_unknown"
    verb = "has"


class ObservationLength(RequestPartError):
    """The length of a list differs from that of the Tuple space."""

    code = "observation_length"
    verb = "has"


class FeedbackInvalid(RequestPartError):
    """A report about an episode has an invalid value."""

    code = "feedback_invalid"


@dataclass(eq=False)
class ObservationEncoding(RequestError):
    """An array in base64 cannot be decoded, for the given reason."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_encoding"
    template = "{path}: {reason}"

    path: str
    reason: str


@dataclass(eq=False)
class HeaderInvalid(RequestError):
    """A header of the request has an invalid value."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "header_invalid"
    template = 'the header {name} is "{found}", expected {expected}'

    name: str
    found: str
    expected: str


@dataclass(eq=False)
class EpisodeAmbiguous(RequestError):
    """The header X-Episode-Id names one episode, and the request has `found` observations."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "episode_ambiguous"
    template = (
        "the header X-Episode-Id names one episode, but the request has {found} observations; send one observation per "
        'request, or name the episodes in the body of the native protocol: "episodes", "steps", "rewards"'
    )

    found: int


@dataclass(eq=False)
class PathUnknown(RequestError):
    """The path is none of `known`."""

    status = HTTPStatus.NOT_FOUND
    code = "path_unknown"

    path: str
    known: Sequence[str]

    def __str__(self) -> str:
        return f"no such path: {self.path}; there are {', '.join(self.known)}"


@dataclass(eq=False)
class MethodNotAllowed(RequestError):
    """The path does not accept the method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "method_not_allowed"

    method: str
    path: str
    allowed: Sequence[str]

    def __str__(self) -> str:
        return f"{self.method} is not allowed on {self.path}, use {' or '.join(self.allowed)}"

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Name the allowed methods (RFC 9110, section 10.2.1)."""
        return ((b"allow", ", ".join(self.allowed).encode()),)
