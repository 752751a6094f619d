"""The HTTP API: paths, methods and status codes, as a bare ASGI application.

A framework's router and request objects would take longer than the policy does.
"""

import functools
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

import orjson

from serving.batching import Batcher, Batching
from serving.engine import MAX_BODY_BYTES
from serving.errors import (
    RESPONSES,
    BodyTooLarge,
    MethodNotAllowed,
    Overloaded,
    PathUnknown,
    PolicyFailed,
)
from serving.metrics import Metrics
from serving.refresh import Refresh
from serving.replica import Counts, Replica
from serving.rows import Batch
from serving.served import ServedPolicy

logger = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[ServedPolicy, Receive], Awaitable[bytes]]

MAX_ONGOING_REQUESTS = 256
RETRY_AFTER_S = 1
DRAIN_FACTOR = 16
"""A body too large is read, and dropped, up to this many times the limit: a client that is still sending does
not see an answer before its connection breaks."""


class ClientGoneError(Exception):
    """The client hung up before its request was complete; nobody is there to answer."""


class PolicyApp:
    """Answers observations with the actions of `served`, which may be replaced at any time.

    Each request takes the reference once, so it is answered and labelled by one version.
    """

    def __init__(
        self,
        served: ServedPolicy,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_ongoing_requests: int = MAX_ONGOING_REQUESTS,
        batching: Batching = Batching(),  # noqa: B008 - immutable
        autoscaled: bool = False,
        refresh: Refresh = Refresh(),  # noqa: B008 - immutable
        replica: Replica = Replica(),  # noqa: B008 - immutable
    ) -> None:
        self.served = served
        self.metrics = Metrics()
        self.refresh = refresh
        self.counts = Counts()
        self._replica = replica
        self._max_body_bytes = max_body_bytes
        self._max_ongoing_requests = max_ongoing_requests
        self._ongoing_requests = 0
        self._batching = batching
        self._autoscaled = autoscaled
        self._batched, self._batcher = served, self._batcher_of(served)
        self._routes: dict[str, tuple[tuple[str, ...], Handler]] = {
            "/": (("GET", "POST"), self._act),
            "/model": (("GET", "HEAD"), self._model),
            "/health": (("GET", "HEAD"), self._health),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope (asgi.readthedocs.io/en/latest/specs/main.html)."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await _refuse_websocket(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        served, start = self.served, time.perf_counter()
        try:
            body = await self._route(scope)(served, receive)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets JSON and the log the rest
            self.counts.errors += 1
            self.metrics.refused[await _respond_error(send, served, error)] += 1
            return
        await _respond(send, HTTPStatus.OK, served, body)
        self.metrics.request_ms.add((time.perf_counter() - start) * 1e3)

    def _route(self, scope: Scope) -> Handler:
        path = scope["path"].removeprefix(scope.get("root_path", "")).rstrip("/") or "/"
        if path not in self._routes:
            raise PathUnknown(path, tuple(self._routes))
        allowed, handler = self._routes[path]
        if scope["method"] not in allowed:
            raise MethodNotAllowed(scope["method"], path, allowed)
        return handler

    async def _act(self, served: ServedPolicy, receive: Receive) -> bytes:
        if self._ongoing_requests >= self._max_ongoing_requests and (self._autoscaled or not self._batcher.quick):
            raise Overloaded(self._max_ongoing_requests)
        self._ongoing_requests += 1
        try:
            body = await _read_body(receive, self._max_body_bytes)
            answer = await self._answer(served, body)
            self.counts.answered += 1
            return answer
        finally:
            self._ongoing_requests -= 1

    async def _answer(self, served: ServedPolicy, body: bytes) -> bytes:
        observations, batched = served.codec.decode(body)
        actions = await self._batcher_for(served).act(observations) if len(observations) else observations
        return served.codec.encode(actions, batched=batched)

    def _compute(self, served: ServedPolicy, observations: Batch) -> Batch:
        start = time.perf_counter()
        actions = served.policy.act(observations)
        self.metrics.inference_ms.add((time.perf_counter() - start) * 1e3)
        self.metrics.batch_size.add(len(observations))
        return actions

    def _batcher_for(self, served: ServedPolicy) -> Batcher:
        """Return the batcher of this policy: a batch is never computed by two."""
        if self._batched is not served:
            quick = self._batcher.quick
            self._batched, self._batcher = served, self._batcher_of(served)
            self._batcher.quick = quick  # until it is known better: a promotion refuses nobody
        return self._batcher

    def _batcher_of(self, served: ServedPolicy) -> Batcher:
        return Batcher(functools.partial(self._compute, served), self._batching, gathers=self._autoscaled)

    async def _model(self, served: ServedPolicy, receive: Receive) -> bytes:  # noqa: ARG002
        state = {"replica": self._replica.describe(self.counts), **self.refresh.describe()}
        return orjson.dumps({**served.description, **state})

    async def _health(self, served: ServedPolicy, receive: Receive) -> bytes:  # noqa: ARG002
        status = "degraded" if self.refresh.degraded else "ok"
        return orjson.dumps({"status": status, "name": served.version.name, "version": served.version.version})


async def _read_body(receive: Receive, limit: int) -> bytes:
    """Return the whole body. Raises BodyTooLarge beyond `limit` bytes, ClientGoneError."""
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


async def _respond(send: Send, status: HTTPStatus, served: ServedPolicy, body: bytes, *more: Any) -> None:
    headers = [*served.headers, (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _respond_error(send: Send, served: ServedPolicy, error: Exception) -> str:
    """Answer with the error; return its code."""
    status, code, message = HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "the server failed; its log says why"
    if type(error) in RESPONSES:
        status, code = RESPONSES[type(error)]  # type: ignore[index]  # mypy doesn't narrow the type of an error
        message = str(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        reason = error.reason if isinstance(error, PolicyFailed) else repr(error)
        logger.error("%s: %s", code, reason, exc_info=error)
    await _respond(send, status, served, _error_body(code, message), *_headers_of(error))
    return code


def _headers_of(error: Exception) -> list[tuple[bytes, bytes]]:
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", ", ".join(error.allowed).encode())]
    return [(b"retry-after", b"%d" % RETRY_AFTER_S)] if isinstance(error, Overloaded) else []


def _error_body(code: str, message: str) -> bytes:
    # A request may hold half a surrogate pair, which UTF-8 has no form for.
    printable = message.encode(errors="replace").decode()
    return orjson.dumps({"error": {"code": code, "message": printable}})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _refuse_websocket(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 1008, "reason": "this API is plain HTTP"})
