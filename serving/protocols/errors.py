"""Errors in a request that more than one protocol can raise: in its body, observations, path or method.

The fields `path` are places in the request, such as `observations[3].arm.position`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import RequestError


def located(path: str, verb: str) -> str:
    """Return the beginning of a message: "observation is", but "observation.arm.position:"."""
    return f"{path}:" if "." in path else f"{path} {verb}"


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
    """The request has neither `observation` nor `observations`, only `keys`."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_missing"

    keys: Sequence[str]

    def __str__(self) -> str:
        found = ", ".join(f'"{key}"' for key in self.keys) or "no key"
        return f'the request has {found}, expected "observation" (one) or "observations" (a list of them)'


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

    key: str
    known: Sequence[str]

    def __str__(self) -> str:
        return f'the request has an unknown key "{self.key}", expected only {", ".join(self.known)}'


@dataclass(eq=False)
class ObservationShape(RequestError):
    """The shape of an observation differs from that of the space; it is None for ragged lists."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_shape"

    path: str
    shape: tuple[int, ...] | None
    expected: str

    def __str__(self) -> str:
        found = "lists of different lengths" if self.shape is None else f"shape {self.shape}"
        return f"{located(self.path, 'has')} {found}, expected {self.expected}"


@dataclass(eq=False)
class ObservationType(RequestError):
    """The type of a value does not fit the space."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_type"

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{located(self.path, 'is')} {self.found}, expected {self.expected}"


@dataclass(eq=False)
class ObservationRange(RequestError):
    """An integer is outside of a Discrete, MultiDiscrete or MultiBinary space."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_range"

    path: str
    found: int
    low: int
    high: int

    def __str__(self) -> str:
        return f"{located(self.path, 'is')} {self.found}, expected an integer from {self.low} to {self.high}"


@dataclass(eq=False)
class ObservationNotFinite(RequestError):
    """A value is NaN, infinite, or too large for the space's dtype."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_not_finite"

    path: str
    found: str
    dtype: str

    def __str__(self) -> str:
        return f"{located(self.path, 'is')} {self.found}, expected a finite {self.dtype}"


@dataclass(eq=False)
class ObservationKeyMissing(RequestError):
    """An object lacks a key of the Dict space."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_key_missing"

    path: str
    key: str
    expected: Sequence[str]

    def __str__(self) -> str:
        return f'{located(self.path, "has")} no key "{self.key}", expected {", ".join(self.expected)}'


@dataclass(eq=False)
class ObservationKeyUnknown(RequestError):
    """An object has a key that the Dict space lacks."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_key_unknown"

    path: str
    key: str
    expected: Sequence[str]

    def __str__(self) -> str:
        return f'{located(self.path, "has")} an unknown key "{self.key}", expected {", ".join(self.expected)}'


@dataclass(eq=False)
class ObservationLength(RequestError):
    """The length of a list differs from that of the Tuple space."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_length"

    path: str
    found: int
    expected: int

    def __str__(self) -> str:
        return f"{located(self.path, 'has')} a list of {self.found}, expected {self.expected} elements"


@dataclass(eq=False)
class ObservationEncoding(RequestError):
    """An array in base64 form cannot be decoded, for the given reason."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_encoding"
    template = "{path}: {reason}"

    path: str
    reason: str


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
