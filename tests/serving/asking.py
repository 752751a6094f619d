"""Requests to an application that serves a small policy."""

import asyncio
import json
from typing import Any, NamedTuple

from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.policy.policy import Policy
from serving.protocols.native.json_codec import JsonCodec
from serving.registry.model_version import ModelVersion
from serving.replica.served_policy import ServedPolicy
from tests.serving.policies import CARTPOLE_BUNDLE, digest_tags


def served(bundle: Bundle = CARTPOLE_BUNDLE, name: str = "cartpole-ppo", version: int = 3) -> ServedPolicy:
    model_version = ModelVersion(
        uri=f"models:/{name}/Production",
        name=name,
        version=version,
        run_id="0123",
        stage="Production",
        tags={**digest_tags(bundle), "evaluation.return_mean": "498.5"},
        registry="sqlite:////nowhere.db",
    )
    return ServedPolicy(Policy.load(bundle), model_version, loaded_at=1_700_000_000)


def answer(served: ServedPolicy, body: bytes) -> bytes:
    """Return the body of the native response to a request body, without an application."""
    codec = served.prepared(JsonCodec)
    observations, batched, _ = codec.decode(body)
    return codec.encode(served.policy.act(observations) if len(observations) else observations, batched=batched)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: Any,
    method: str = "POST",
    path: str = "/",
    body: bytes = b"",
    chunks: list[bytes] | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Send one request through the ASGI interface."""
    parts = [body] if chunks is None else chunks
    incoming = [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1} for index, part in enumerate(parts)
    ]
    incoming.append({"type": "http.disconnect"})
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": f"/prefix{path}", "root_path": "/prefix", "query_string": b""}
    scope["headers"] = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    asyncio.run(app(scope, receive, send))
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], answered, b"".join(message["body"] for message in sent[1:]))


async def post(
    app: PolicyApp, body: bytes, path: str = "/", more: tuple[tuple[bytes, bytes], ...] = ()
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send one JSON request through the ASGI interface, in the running event loop, with more headers."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), *more]
    await app({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def answers_together(app: PolicyApp, *bodies: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Send the requests at the same time."""

    async def everyone() -> list[tuple[int, dict[bytes, bytes], bytes]]:
        return await asyncio.gather(*(post(app, body) for body in bodies))

    return asyncio.run(everyone())
