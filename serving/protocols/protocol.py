"""The interface of a protocol: it turns requests into responses and errors, in its own form."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson

from serving.errors import HttpError
from serving.policy.spaces import Json
from serving.protocols.errors import BodyNotJson
from serving.replica.served_policy import ServedPolicy

INTERNAL_ERROR = "internal_error"
INTERNAL_MESSAGE = "the server failed; its log says why"
"""The code and the message of the response to an exception that is not an HttpError."""

MAX_MESSAGE = 2000
"""The maximum length of an error message, which may repeat parts of the request."""


class Request(NamedTuple):
    """An HTTP request. Its properties are computed on access, because the native route needs none of them."""

    scope: MutableMapping[str, Any]
    """The connection's ASGI scope."""
    path: str
    """The path below the route prefix, without a trailing slash."""
    body: bytes

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The headers, with names in lower case. If a name occurs more than once, it has its last value."""
        return dict(self.scope["headers"])

    @property
    def prefix(self) -> str:
        """The route prefix, without a trailing slash."""
        return str(self.scope.get("root_path", ""))


class Response(NamedTuple):
    """A response. The application adds the headers that name the model and its version."""

    body: bytes | AsyncGenerator[bytes, None]
    """A generator is sent part by part, and closed when the client disconnects."""
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    status: HTTPStatus = HTTPStatus.OK


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The content of an error response, independent of the protocol."""

    status: HTTPStatus
    code: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    request_id: str | None = None
    """The request's identifier, if it has one."""

    @classmethod
    def of(cls, error: Exception, request_id: str | None = None) -> "ErrorResponse":
        """Return the response to an error. The client receives no details of errors other than HttpError."""
        if isinstance(error, RecursionError):
            # No observation is nested that deeply, so the reader reached the recursion limit inside the request's JSON.
            error = BodyNotJson("it is nested too deeply")
        if not isinstance(error, HttpError):
            return cls(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR, INTERNAL_MESSAGE, request_id=request_id)
        # A request may hold half a surrogate pair, which cannot be encoded in UTF-8.
        message = str(error)[:MAX_MESSAGE].encode(errors="replace").decode()
        return cls(error.status, error.code, message, error.headers, request_id)

    @property
    def identity(self) -> dict[str, Json]:
        """The member `request_id` of the body; without an identifier there is none."""
        return {"request_id": self.request_id} if self.request_id else {}


class Protocol(ABC):
    """One way to request actions over HTTP."""

    @abstractmethod
    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods that a path accepts, or none if the path does not belong to this protocol."""

    @abstractmethod
    async def answer(self, request: Request, served: ServedPolicy) -> Response | bytes:
        """Return the response to a request, computed by the given policy. Raises ServingError.

        Bytes are the body of a JSON response without further headers: the native route returns them, because a
        `Response` costs 0.5 microseconds.
        """

    def episode(self, request: Request) -> str | None:  # noqa: ARG002
        """Return the name of the one episode whose step a request is, None for any other request.

        It is called only during an experiment. An invalid name counts as none: `answer` says what is wrong with it.
        """
        return None

    def prepare(self, served: ServedPolicy) -> None:  # noqa: B027 - some protocols prepare nothing
        """Compute what this protocol needs for a version, before the version receives requests."""

    def error_body(self, error: ErrorResponse) -> bytes:
        """Return the JSON body of an error in this protocol's form."""
        return orjson.dumps({"error": {"code": error.code, "message": error.message, **error.identity}})

    def paths(self, served: ServedPolicy) -> dict[str, Json]:  # noqa: ARG002
        """Return OpenAPI's path items of this protocol for one policy. Every operation has the response 401."""
        return {}
