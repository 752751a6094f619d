"""The HTTP API: paths, methods and status codes, as a bare ASGI application.

A framework's router and request objects would take longer than the policy does.
"""

import functools
import logging
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import orjson

from serving.http.asgi import (
    ClientGoneError,
    Receive,
    Scope,
    Send,
    lifespan,
    read_body,
    refuse_websocket,
    respond,
    respond_in_parts,
)
from serving.play.errors import PlayBusy
from serving.play.protocol import PLAY_SESSIONS, Play
from serving.policy.errors import PolicyFailed
from serving.policy.rows import Batch
from serving.protocols.errors import MethodNotAllowed, PathUnknown
from serving.protocols.mlflow_scoring.scoring import ScoringProtocol
from serving.protocols.open_inference.http import InferenceProtocol
from serving.protocols.openapi.openapi import Documentation
from serving.protocols.protocol import Act, Answer, Protocol, Refusal, Request
from serving.ray.settings import MAX_BODY_BYTES
from serving.replica.auth import CHALLENGE, BearerToken
from serving.replica.batching import Batcher, Batching
from serving.replica.errors import Overloaded, Unauthorized
from serving.replica.identity import Counts, Replica
from serving.replica.limits import Limits
from serving.replica.metrics import Metrics
from serving.replica.refresh_state import Refresh
from serving.replica.served_policy import ServedPolicy

logger = logging.getLogger(__name__)

Handler = Callable[[ServedPolicy, Receive], Awaitable[bytes]]

MAX_ONGOING_REQUESTS = 256
RETRY_AFTER_S = 1


class PolicyApp:
    """Answers observations with the actions of `served`, which may be replaced at any time.

    Each request takes the reference once, so it is answered and labelled by one version.
    """

    def __init__(
        self,
        served: ServedPolicy,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        token: BearerToken | None = None,
        max_ongoing_requests: int = MAX_ONGOING_REQUESTS,
        batching: Batching = Batching(),  # noqa: B008 - immutable
        autoscaled: bool = False,
        play_sessions: int = PLAY_SESSIONS,
        refresh: Refresh = Refresh(),  # noqa: B008 - immutable
        replica: Replica = Replica(),  # noqa: B008 - immutable
    ) -> None:
        self.served = served
        self.metrics = Metrics()
        self.refresh = refresh
        self.counts = Counts()
        self._replica = replica
        self.max_body_bytes = max_body_bytes
        self._limits = limits
        self.token = token
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
        play = Play(play_sessions, lambda: self.served, self.act_for)
        self._protocols: tuple[Protocol, ...] = (ScoringProtocol(), InferenceProtocol(), play)
        self._protocols += (Documentation(self._protocols, limits, closed=token is not None),)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope (asgi.readthedocs.io/en/latest/specs/main.html)."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await lifespan(receive, send)
        else:
            await refuse_websocket(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        served, start = self.served, time.perf_counter()
        prefix = scope.get("root_path", "")
        path = scope["path"].removeprefix(prefix).rstrip("/") or "/"
        route = self._routes.get(path)
        protocol = None if route else self._protocol_of(path)
        refuse = protocol.refuse if protocol else _refuse
        try:
            if self.token is not None:
                self.token.check(path, scope["headers"])
            if route:
                allowed, handler = route
                _check_method(scope["method"], path, allowed)
                body = await handler(served, receive)
                await respond(send, HTTPStatus.OK, served.headers, body)
            elif protocol is None:
                raise PathUnknown(path, tuple(self._routes))  # noqa: TRY301 - it is answered as all errors are
            else:
                _check_method(scope["method"], path, protocol.methods(path))
                body = await read_body(receive, self.max_body_bytes)
                headers = dict(scope["headers"])
                request = Request(scope["method"], path, headers, scope.get("query_string", b""), body, prefix)
                answer = await self._ask(protocol, request, served)
                await _send(receive, send, served, answer)
                if not isinstance(answer.body, bytes):
                    return  # how long someone watched is no latency
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets JSON and the log the rest
            refusal = self.refusal_of(error)
            await respond(send, refusal.status, [*served.headers, *_headers_of(error)], refuse(refusal))
            return
        self.metrics.request_ms.add((time.perf_counter() - start) * 1e3)

    def refusal_of(self, error: Exception) -> Refusal:
        """Count an error, log it where it is the server's, and return what the client is told."""
        self.counts.errors += 1
        refusal = Refusal.of(error)
        self.metrics.refused[refusal.code] += 1
        _log(refusal, error)
        return refusal

    def _protocol_of(self, path: str) -> Protocol | None:
        return next((protocol for protocol in self._protocols if protocol.methods(path)), None)

    async def _ask(self, protocol: Protocol, request: Request, served: ServedPolicy) -> Answer:
        try:
            return await protocol.answer(request, served, self.act_for(served))
        except Exception:
            self._limits.check_depth(_json_of(request.body, request.headers))
            raise

    async def _act(self, served: ServedPolicy, receive: Receive) -> bytes:
        self._admit()
        self._ongoing_requests += 1
        try:
            body = await read_body(receive, self.max_body_bytes)
            answer = await self._answer(served, body)
            self.counts.answered += 1
            return answer
        finally:
            self._ongoing_requests -= 1

    def act_for(self, served: ServedPolicy) -> Act:
        """Return what computes the actions of one request with this policy, if there is room for it."""

        async def act(observations: Batch) -> Batch:
            self._limits.check_observations(len(observations))
            self._admit()
            self._ongoing_requests += 1
            try:
                actions = await self._batcher_for(served).act(observations) if len(observations) else observations
                self.counts.answered += 1
                return actions
            finally:
                self._ongoing_requests -= 1

        return act

    def _admit(self) -> None:
        if self._ongoing_requests >= self._max_ongoing_requests and (self._autoscaled or not self._batcher.quick):
            raise Overloaded(self._max_ongoing_requests)

    async def _answer(self, served: ServedPolicy, body: bytes) -> bytes:
        try:
            observations, batched = served.codec.decode(body)
        except Exception:
            self._limits.check_depth(body)
            raise
        if batched:
            self._limits.check_observations(len(observations))
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


async def _send(receive: Receive, send: Send, served: ServedPolicy, answer: Answer) -> None:
    headers = [(b"content-type", answer.content_type), *served.labels, *answer.headers]
    if isinstance(answer.body, bytes):
        await respond(send, answer.status, headers, answer.body)
    else:
        await respond_in_parts(receive, send, answer.status, headers, answer.body)


def _check_method(method: str, path: str, allowed: tuple[str, ...]) -> None:
    if method not in allowed:
        raise MethodNotAllowed(method, path, allowed)


def _json_of(body: bytes, headers: dict[bytes, bytes]) -> bytes:
    """Return the part of a body that may be JSON: CSV is not, nor are tensors in bytes."""
    length = headers.get(b"inference-header-content-length", b"")
    if length.isdigit():
        return body[: int(length)]
    kinds = (b"text/csv", b"application/octet-stream")
    return b"" if headers.get(b"content-type", b"").lower().startswith(kinds) else body


def _refuse(refusal: Refusal) -> bytes:
    return orjson.dumps({"error": {"code": refusal.code, "message": refusal.message}})


def _log(refusal: Refusal, error: Exception) -> None:
    if refusal.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        reason = error.reason if isinstance(error, PolicyFailed) else repr(error)
        logger.error("%s: %s", refusal.code, reason, exc_info=error)


def _headers_of(error: Exception) -> list[tuple[bytes, bytes]]:
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", ", ".join(error.allowed).encode())]
    if isinstance(error, Unauthorized):
        return [CHALLENGE]
    return [(b"retry-after", b"%d" % RETRY_AFTER_S)] if isinstance(error, Overloaded | PlayBusy) else []
