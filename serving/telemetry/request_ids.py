"""The identifier of a request, `X-Request-ID`, which its response, error body, log records and trace share.

HAProxy takes the client's identifier if it is valid, and makes one otherwise: `serving/ray/haproxy_wrapper.py`. Serve
adds it to the response. The direct port has neither in front of it, and does both by `with_request_ids`.
"""

import random
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

HEADER = b"x-request-id"

ACCEPTED = "^[A-Za-z0-9._:+/=-]{1,128}$"
"""The identifiers that are taken from clients: UUIDs, ULIDs and Base64 among them, nothing that a log must escape."""

_ACCEPTED = re.compile(ACCEPTED.encode())

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def accepted(value: str | bytes | None) -> str | None:
    """Return an identifier as text if it is one that is taken from clients, else None."""
    raw = value.encode(errors="replace") if isinstance(value, str) else value or b""
    # `$` also matches before a line break at the end, which no header has.
    return raw.decode() if _ACCEPTED.match(raw) and not raw.endswith(b"\n") else None


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the identifier that the headers of a request carry, or None if they carry none that is accepted."""
    return accepted(next((value for name, value in headers if name == HEADER), None))


def new_request_id() -> bytes:
    """Return a new identifier: 128 random bits in hexadecimal digits.

    It is no secret, so `random` will do, which takes an eighth of the time of `uuid.uuid4`.
    """
    return b"%032x" % random.getrandbits(128)


def with_request_ids(application: Application) -> Application:
    """Return the ASGI application, with an identifier in the headers of each request and in those of its response."""

    async def identified(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        headers = scope["headers"]
        given = request_id_of(headers)
        header = (HEADER, given.encode() if given else new_request_id())
        if given is None:
            scope["headers"] = [*(each for each in headers if each[0] != HEADER), header]

        async def send_identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        await application(scope, receive, send_identified)

    return identified
