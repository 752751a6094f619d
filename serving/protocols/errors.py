"""Errors in what a client sent: bodies, observations, paths and methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import RequestError


def located(path: str, verb: str) -> str:
    """Return the beginning of a message: "observation is", but "observation.arm.position:"."""
    return f"{path}:" if "." in path else f"{path} {verb}"


@dataclass(eq=False)
class BodyNotJson(RequestError):
    """The body is not JSON; `reason` is the parser's."""

    status = HTTPStatus.BAD_REQUEST
    code = "body_not_json"

    reason: str

    def __str__(self) -> str:
        return f'the body is not JSON: {self.reason}; send {{"observation": [...]}}'


@dataclass(eq=False)
class BodyNotObject(RequestError):
    """The body is JSON, but no object; `found` describes it."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "body_not_object"

    found: str

    def __str__(self) -> str:
        return f'the body is {self.found}, expected an object like {{"observation": [...]}}'


@dataclass(eq=False)
class ObservationMissing(RequestError):
    """Neither of the two keys is there; `keys` are those that are."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_missing"

    keys: Sequence[str]

    def __str__(self) -> str:
        found = ", ".join(f'"{key}"' for key in self.keys) or "no key"
        return f'the request has {found}, expected "observation" (one) or "observations" (a list of them)'


@dataclass(eq=False)
class ObservationAmbiguous(RequestError):
    """Both `observation` and `observations` are there."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_ambiguous"

    def __str__(self) -> str:
        return 'the request has both "observation" and "observations", expected one of them'


@dataclass(eq=False)
class KeyUnknown(RequestError):
    """The request has a key that means nothing beside those that it also has; `known` are those that would."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "key_unknown"

    key: str
    known: Sequence[str]

    def __str__(self) -> str:
        return f'the request has an unknown key "{self.key}", expected only {", ".join(self.known)}'


@dataclass(eq=False)
class ObservationShape(RequestError):
    """The observation at `path` has another shape than the space; None stands for ragged lists."""

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
    """The value at `path` is no number of the space's type."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_type"

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{located(self.path, 'is')} {self.found}, expected {self.expected}"


@dataclass(eq=False)
class ObservationRange(RequestError):
    """The integer at `path` is none of those that the space counts."""

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
    """The value at `path` is NaN, infinite, or too large for the space's type."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_not_finite"

    path: str
    found: str
    dtype: str

    def __str__(self) -> str:
        return f"{located(self.path, 'is')} {self.found}, expected a finite {self.dtype}"


@dataclass(eq=False)
class ObservationKeyMissing(RequestError):
    """The object at `path` lacks a key of the Dict space."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_key_missing"

    path: str
    key: str
    expected: Sequence[str]

    def __str__(self) -> str:
        return f'{located(self.path, "has")} no key "{self.key}", expected {", ".join(self.expected)}'


@dataclass(eq=False)
class ObservationKeyUnknown(RequestError):
    """The object at `path` has a key that the Dict space lacks."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_key_unknown"

    path: str
    key: str
    expected: Sequence[str]

    def __str__(self) -> str:
        return f'{located(self.path, "has")} an unknown key "{self.key}", expected {", ".join(self.expected)}'


@dataclass(eq=False)
class ObservationLength(RequestError):
    """The list at `path` has more or fewer elements than the Tuple space."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_length"

    path: str
    found: int
    expected: int

    def __str__(self) -> str:
        return f"{located(self.path, 'has')} a list of {self.found}, expected {self.expected} elements"


@dataclass(eq=False)
class ObservationEncoding(RequestError):
    """The base64 form of the array at `path` cannot be decoded; `reason` says why."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "observation_encoding"

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(eq=False)
class PathUnknown(RequestError):
    """No such path under the route prefix."""

    status = HTTPStatus.NOT_FOUND
    code = "path_unknown"

    path: str
    known: Sequence[str]

    def __str__(self) -> str:
        return f"no such path: {self.path}; there are {', '.join(self.known)}"


@dataclass(eq=False)
class MethodNotAllowed(RequestError):
    """The path is there, the method is not."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "method_not_allowed"

    method: str
    path: str
    allowed: Sequence[str]

    def __str__(self) -> str:
        return f"{self.method} is not allowed on {self.path}, use {' or '.join(self.allowed)}"
