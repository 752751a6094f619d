"""Reasons why a replica rejects a request before any protocol reads it."""

from dataclasses import dataclass
from http import HTTPStatus

from serving.errors import HttpError, RequestError, ServingError


@dataclass(eq=False)
class BodyTooLarge(RequestError):
    """The body exceeds `limit` bytes."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "body_too_large"

    limit: int

    def __str__(self) -> str:
        return f"the body is larger than {self.limit} bytes; send fewer observations per request"


@dataclass(eq=False)
class Overloaded(HttpError):
    """The replica holds `limit` requests, which is all it may."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "overloaded"

    limit: int

    def __str__(self) -> str:
        return f"the server holds {self.limit} requests, as many as it may; try again in a second"


@dataclass(eq=False)
class ObservationsTooMany(RequestError):
    """The request holds more than `limit` observations."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "observations_too_many"

    found: int
    limit: int

    def __str__(self) -> str:
        return f"the request holds {self.found} observations, expected at most {self.limit}; send several requests"


@dataclass(eq=False)
class JsonTooDeep(RequestError):
    """Lists and objects stand in each other, more than `limit` deep."""

    status = HTTPStatus.BAD_REQUEST
    code = "json_too_deep"

    limit: int

    def __str__(self) -> str:
        return f"the body nests lists and objects more than {self.limit} deep; no observation needs that"


@dataclass(eq=False)
class Unauthorized(RequestError):
    """The server asks for a token; the request has none, or another one if `given`."""

    status = HTTPStatus.UNAUTHORIZED
    code = "unauthorized"

    given: bool

    def __str__(self) -> str:
        found = "another token than the server's" if self.given else "no token"
        return f"the request brings {found}; send the header Authorization: Bearer TOKEN"


@dataclass(eq=False)
class TokenFileInvalid(ServingError):
    """The file with the bearer token holds none; `reason` says why."""

    file: str
    reason: str

    def __str__(self) -> str:
        return (
            f"cannot take the token from {self.file}: {self.reason}. Write one into it: "
            f"(umask 077 && openssl rand -hex 32 > {self.file})"
        )
