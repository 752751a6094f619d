"""The paths of the page: `/play` itself, and `/play/events`, the session that it shows."""

import asyncio
from collections.abc import AsyncGenerator

from serving.play.errors import PlayBusy
from serving.play.page import headers, page
from serving.play.session import ActFor, Current, Session
from serving.protocols.openapi.parts import TEXT, Paths, error_responses, html, record
from serving.protocols.protocol import Protocol, Request, Response
from serving.replica.served_policy import Act, ServedPolicy

PLAY_SESSIONS = 2

PAGE, EVENTS = "/play", "/play/events"
METHODS = {PAGE: ("GET", "HEAD"), EVENTS: ("GET",)}

ALIVE_S = 0.8
"""A proxy gives up on an answer of which nothing comes for two seconds."""

STREAM_HEADERS = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))


class Play(Protocol):
    """A page to watch the policy on.

    Args:
        sessions: how many may watch at once; with none, there is no page.
        current: what the replica serves now.
        act_for: how to ask it for actions.
    """

    def __init__(self, sessions: int, current: Current, act_for: ActFor) -> None:
        self._sessions = sessions
        self._current = current
        self._act_for = act_for
        self._watching = 0

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods that a path takes."""
        return METHODS.get(path, ()) if self._sessions else ()

    async def answer(self, request: Request, served: ServedPolicy, act: Act) -> Response:  # noqa: ARG002 - asks whoever serves then
        """Answer with the page, or begin a session. Raises PlayBusy."""
        if request.path == PAGE:
            return Response(page(), b"text/html; charset=utf-8", headers=headers())
        if self._watching >= self._sessions:
            raise PlayBusy(self._sessions)
        return Response(self._session(), b"text/event-stream", headers=STREAM_HEADERS)

    def paths(self, served: ServedPolicy) -> Paths:  # noqa: ARG002
        """Return OpenAPI's path item of the page; what it listens to is its own business."""
        error = record({"error": record({"code": TEXT, "message": TEXT})})
        responses = {"200": html("The page"), **error_responses(error)}
        page = {"operationId": "play", "summary": "A page to watch the policy on", "responses": responses}
        return {PAGE: {"get": page}} if self._sessions else {}

    async def _session(self) -> AsyncGenerator[bytes, None]:
        self._watching += 1
        events = kept_alive(Session(self._current, self._act_for).events(), ALIVE_S)
        try:
            async for event in events:
                yield event
        finally:
            self._watching -= 1
            await events.aclose()


async def kept_alive(parts: AsyncGenerator[bytes, None], every_s: float) -> AsyncGenerator[bytes, None]:
    """Yield the parts, and a comment at once and whenever none came for so many seconds."""
    yield b":\n\n"
    coming: asyncio.Future[bytes | None] = asyncio.ensure_future(anext(parts, None))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=every_s)
            part = coming.result() if done else b":\n\n"
            if part is None:
                return
            yield part
            if done:
                coming = asyncio.ensure_future(anext(parts, None))
    finally:
        coming.cancel()
        await asyncio.wait({coming})
        await parts.aclose()
