"""What the protocols beside the native one are made of: requests, answers, and their own form of errors."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol as Typed

from serving.errors import HttpError
from serving.policy.rows import Batch
from serving.replica.served_policy import ServedPolicy

Act = Callable[[Batch], Awaitable[Batch]]
"""Observations -> actions, beside those of other requests. Raises Overloaded and PolicyFailed."""


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request."""

    method: str
    path: str
    """Under the route prefix, without a slash at its end."""
    headers: dict[bytes, bytes]
    """Names are in lower case; of several of one name, the last."""
    query: bytes
    body: bytes
    prefix: str = ""
    """The route prefix, without a slash at its end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets, labelled with the model's name and version by whoever sends it."""

    body: bytes | AsyncGenerator[bytes, None]
    """A generator is sent part by part, and closed when the client hangs up."""
    content_type: bytes = b"application/json"
    status: HTTPStatus = HTTPStatus.OK
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client is told of an error, whatever the protocol."""

    status: HTTPStatus
    code: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> "Refusal":
        """Look an error up; of one that isn't ours, nothing is told."""
        if not isinstance(error, HttpError):
            return cls(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "the server failed; its log says why")
        # A request may hold half a surrogate pair, which UTF-8 has no form for.
        return cls(error.status, error.code, str(error).encode(errors="replace").decode())


class Protocol(Typed):
    """One way to ask for actions, beside the native one."""

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods that a path takes; none where the path isn't of this protocol."""

    async def answer(self, request: Request, served: ServedPolicy, act: Act) -> Answer:
        """Answer a request, with one policy from first to last. Raises ServingError."""

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the JSON body that tells of an error in this protocol's form; the status is the refusal's."""
