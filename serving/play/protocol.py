"""The HTTP paths of the page: `/play`, and `/play/events`, the session that it shows."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from serving.play.errors import PlayBusy
from serving.play.page import headers, page
from serving.play.session import GetServed, Session
from serving.protocols.openapi.parts import TEXT, Paths, error_responses, html, record
from serving.protocols.protocol import Protocol, Request, Response
from serving.replica.served_policy import ServedPolicy

PAGE, EVENTS = "/play", "/play/events"
METHODS = {PAGE: ("GET", "HEAD"), EVENTS: ("GET",)}

KEEP_ALIVE_S = 0.8
"""The proxy closes a response that sends nothing for two seconds."""

COMMENT = b":\n\n"
"""A Server-Sent Event without content."""

STREAM_HEADERS = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))


class Play(Protocol):
    """Serves the page and its sessions.

    Args:
        sessions: the maximum number of concurrent sessions; with 0, the paths do not exist.
        get_served: returns the policy that the replica currently serves.
        environment_modules: modules that environments may be imported from, besides Gymnasium's.
    """

    def __init__(self, sessions: int, get_served: GetServed, environment_modules: Sequence[str] = ()) -> None:
        self._sessions = sessions
        self._get_served = get_served
        self._environment_modules = environment_modules
        self._active = 0

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods that a path accepts."""
        return METHODS.get(path, ()) if self._sessions else ()

    async def answer(self, request: Request, served: ServedPolicy) -> Response:  # noqa: ARG002 - a session outlives it
        """Return the page, or start a session. Raises PlayBusy."""
        if request.path == PAGE:
            return Response(page(), b"text/html; charset=utf-8", headers=headers())
        if self._active >= self._sessions:
            raise PlayBusy(self._sessions)
        return Response(self._session(), b"text/event-stream", headers=STREAM_HEADERS)

    def paths(self, served: ServedPolicy) -> Paths:  # noqa: ARG002
        """Return OpenAPI's path item of the page. The events are private to the page."""
        error = record({"error": record({"code": TEXT, "message": TEXT}, {"request_id": TEXT})})
        responses = {"200": html("The page"), **error_responses(error)}
        page = {"operationId": "play", "summary": "A page that shows the policy acting", "responses": responses}
        return {PAGE: {"get": page}} if self._sessions else {}

    async def _session(self) -> AsyncGenerator[bytes, None]:
        self._active += 1
        session = Session(self._get_served, environment_modules=self._environment_modules)
        events = with_keep_alive(session.events(), KEEP_ALIVE_S)
        try:
            async for event in events:
                yield event
        finally:
            self._active -= 1
            await events.aclose()


async def with_keep_alive(events: AsyncGenerator[bytes, None], every_s: float) -> AsyncGenerator[bytes, None]:
    """Yield the events, and a comment first and whenever there is no event for `every_s` seconds."""
    yield COMMENT
    pending: asyncio.Future[bytes | None] = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait({pending}, timeout=every_s)
            event = pending.result() if done else COMMENT
            if event is None:
                return
            yield event
            if done:
                pending = asyncio.ensure_future(anext(events, None))
    finally:
        pending.cancel()
        await asyncio.wait({pending})
        await events.aclose()
