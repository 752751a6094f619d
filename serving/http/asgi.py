"""Reading requests and sending responses through ASGI (asgi.readthedocs.io/en/latest/specs/www.html)."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any

from serving.replica.errors import BodyTooLarge

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

DRAIN_FACTOR = 16
"""A body beyond the limit is read and dropped up to this many times the limit, because a client that is still sending
does not read the response before its connection breaks."""


class ClientGoneError(Exception):
    """The client disconnected before the response was complete."""


async def read_body(receive: Receive, limit: int) -> bytes:
    """Return the whole body. Raises BodyTooLarge if it exceeds `limit` bytes, and ClientGoneError."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] != "http.request":
        raise ClientGoneError
    if message.get("more_body", False):
        body = await _read_rest(receive, body, limit)
    if len(body) > limit:
        raise BodyTooLarge(limit)
    return body


async def _read_rest(receive: Receive, start: bytes, limit: int) -> bytes:
    chunks, length, more = [start], len(start), True
    while more and length <= limit * DRAIN_FACTOR:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        chunk, more = message.get("body", b""), message.get("more_body", False)
        length += len(chunk)
        if length <= limit:
            chunks.append(chunk)
    if length > limit:
        raise BodyTooLarge(limit)
    return b"".join(chunks)


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a complete response."""
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def with_header(send: Send, header: tuple[bytes, bytes]) -> Send:
    """Return a `send` that adds a header to the response."""

    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], header]
        await send(message)

    return send_with_header


async def respond_in_parts(receive: Receive, send: Send, headers: Headers, parts: AsyncGenerator[bytes, None]) -> None:
    """Send a response of status 200 part by part until it ends or the client disconnects. It always closes `parts`.

    An exception before the first part is raised. After it, when the status is already sent, an exception is logged.

    Raises:
        ClientGoneError: the response broke off, because the client disconnected or `parts` failed.
    """
    async with contextlib.aclosing(parts):
        first = await anext(parts, b"")
        sending = asyncio.ensure_future(_send_parts(send, headers, first, parts))
        disconnecting = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({sending, disconnecting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            disconnecting.cancel()
            await asyncio.wait({sending, disconnecting})
    if sending.cancelled():
        raise ClientGoneError
    if error := sending.exception():
        logger.error("a response broke off: %r", error, exc_info=error)
        raise ClientGoneError from error


async def _send_parts(send: Send, headers: Headers, first: bytes, parts: AsyncGenerator[bytes, None]) -> None:
    await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": [*headers]})
    await send({"type": "http.response.body", "body": first, "more_body": True})
    async for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _disconnected(receive: Receive) -> None:
    """Return when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def lifespan(receive: Receive, send: Send) -> None:
    """Acknowledge startup and shutdown."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def reject_websocket(receive: Receive, send: Send) -> None:
    """Reject a WebSocket connection."""
    await receive()
    await send({"type": "websocket.close", "code": 1008, "reason": "this API is plain HTTP"})
