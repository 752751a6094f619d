"""`/openapi.json`: the API described for the policy that is served, from its own spaces; and `/docs`, to read it.

OpenAPI 3.1 (spec.openapis.org/oas/v3.1.1).
"""

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import orjson

from serving.errors import http_errors
from serving.policy.spaces import Json
from serving.protocols.native.json_codec import MANY, MAX_SEED, ONE, STATE, STATES
from serving.protocols.native.json_schemas import element_schema, example
from serving.protocols.openapi.parts import TEXT, Paths, html, labelled, record
from serving.protocols.protocol import Act, Answer, Refusal, Request
from serving.replica.auth import OPEN_PATHS
from serving.replica.limits import Limits
from serving.replica.served_policy import ServedPolicy

PAGE = Path(__file__).with_name("docs.html")

POLICY = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:",
)
"""The page asks nobody but its own server."""

ACT_STATUSES = (400, 413, 422, 500, 503)


@runtime_checkable
class Documented(Protocol):
    """A protocol that describes itself."""

    def paths(self, served: ServedPolicy) -> Paths:
        """Return OpenAPI's path items of this protocol, for one policy; every operation has an answer 401."""


class Documentation:
    """`/openapi.json` and `/docs`, of the native protocol and of all that describe themselves.

    Args:
        protocols: beside the native one.
        limits: of a request.
        closed: whether a token is asked for.
    """

    def __init__(self, protocols: Sequence[object], limits: Limits, *, closed: bool) -> None:
        self._protocols = protocols
        self._limits = limits
        self._closed = closed

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods that a path takes."""
        return ("GET", "HEAD") if path in {"/openapi.json", "/docs"} else ()

    async def answer(self, request: Request, served: ServedPolicy, act: Act) -> Answer:  # noqa: ARG002
        """Return the description, or the page that shows it."""
        if request.path == "/docs":
            return Answer(PAGE.read_bytes(), b"text/html; charset=utf-8", headers=(POLICY,))
        return Answer(orjson.dumps(self.document(served, request.prefix)))

    def refuse(self, refusal: Refusal) -> bytes:
        """Return an error in the native form."""
        return orjson.dumps({"error": {"code": refusal.code, "message": refusal.message}})

    def document(self, served: ServedPolicy, prefix: str) -> dict[str, Json]:
        """Return the description of the API under a route prefix."""
        paths = native_paths(served, self._limits)
        for protocol in self._protocols:
            if isinstance(protocol, Documented):
                paths |= protocol.paths(served)
        for path, item in paths.items():
            for operation in item.values():
                if not self._closed or path in OPEN_PATHS:
                    operation["responses"] = _without(operation["responses"], "401")
                if self._closed and path in OPEN_PATHS:
                    operation["security"] = []
        components: dict[str, Json] = {"responses": error_responses()}
        document = {
            "openapi": "3.1.0",
            "info": {
                "title": served.version.name,
                "version": str(served.version.version),
                "description": _about(served),
            },
            "servers": [{"url": prefix or "/"}],
            "paths": paths,
            "components": components,
        }
        if self._closed:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"token": []}]
        return document


def _without(responses: dict[str, Json], status: str) -> dict[str, Json]:
    return {key: response for key, response in responses.items() if key != status}


def native_paths(served: ServedPolicy, limits: Limits) -> Paths:
    """Return the path items of the native protocol."""
    act = {
        "summary": "Actions for observations",
        "requestBody": {"required": True, "content": {"application/json": _requests(served, limits)}},
        "responses": {
            "200": labelled("The actions, as env.step takes them.", _answers(served)),
            **refusals(*ACT_STATUSES),
        },
    }
    return {
        "/": {
            "post": {**act, "operationId": "act"},
            "get": {**act, "operationId": "act_by_get", "description": "As POST: a GET may have a body here."},
        },
        "/model": {"get": _get("model", "What is served", {"type": "object", "required": ["name", "version"]})},
        "/health": {
            "get": _get(
                "health",
                "Whether there is a policy",
                record({"status": {"enum": ["ok", "degraded"]}, "name": TEXT, "version": {"type": "integer"}}),
            )
        },
        "/openapi.json": {"get": _get("openapi", "This description", {"type": "object"})},
        "/docs": {
            "get": {
                "operationId": "docs",
                "summary": "This description, to read",
                "responses": {"200": html("A page that shows this description"), **refusals()},
            }
        },
    }


def refusals(*statuses: int) -> dict[str, Json]:
    """Return the native protocol's answers with these statuses, for an operation's `responses`."""
    return {str(status): _reference(HTTPStatus(status)) for status in sorted({*statuses, 401, 500})}


OTHERS = (
    "media_type_unsupported",
    "invocation_malformed",
    "invocation_invalid",
    "inference_invalid",
    "model_not_served",
    "version_not_served",
    "play_busy",
)
"""Codes of errors that only the other protocols have."""


INTERNAL_ERROR = (HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error")


def error_responses() -> dict[str, Json]:
    """Return the native protocol's errors by name of their status: OpenAPI's response components."""
    codes: dict[HTTPStatus, list[str]] = {}
    for status, code in [*((error.status, error.code) for error in http_errors()), INTERNAL_ERROR]:
        if code not in OTHERS:
            codes.setdefault(status, []).append(code)
    return {status.name: _error(status, names) for status, names in codes.items()}


def _error(status: HTTPStatus, codes: list[str]) -> dict[str, Json]:
    error = record({"code": {"enum": codes}, "message": TEXT})
    content = {"application/json": {"schema": record({"error": error})}}
    return {"description": f"{status.phrase}: {', '.join(codes)}", "content": content}


def _reference(status: HTTPStatus) -> dict[str, Json]:
    return {"$ref": f"#/components/responses/{status.name}"}


def _get(name: str, summary: str, schema: dict[str, Json]) -> dict[str, Json]:
    return {"operationId": name, "summary": summary, "responses": {"200": labelled(summary, schema), **refusals()}}


def _about(served: ServedPolicy) -> str:
    return f"Actions of {served.version.uri} for {served.policy.environment.id}, version {served.version.version}."


def _requests(served: ServedPolicy, limits: Limits) -> dict[str, Json]:
    space = served.policy.observation_space
    one = element_schema(space, sent=True)
    many = {"type": "array", "items": one, "maxItems": limits.max_observations}
    options, state = _options(served), {"type": ["string", "null"]}
    states = {"type": "array", "items": state}
    schemas = [record({ONE: one}, options | {STATE: state}), record({MANY: many}, options | {STATES: states})]
    return {"schema": {"anyOf": schemas}, "examples": _examples(served)}


def _options(served: ServedPolicy) -> dict[str, Json]:
    flag = {"type": "boolean"}
    explore = flag if served.policy.interface.noise else {"const": False}
    seed = {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_SEED}
    return {"explore": explore, "seed": seed, "details": flag}


def _examples(served: ServedPolicy) -> dict[str, Json]:
    observation = example(served.policy.observation_space)
    bodies: dict[str, dict[str, Any]] = {
        "one observation": {ONE: observation},
        "several observations": {MANY: [observation, observation]},
        "with details": {ONE: observation, "details": True},
    }
    if served.policy.interface.noise:
        bodies["a sampled action"] = {ONE: observation, "explore": True, "seed": 7}
    if served.policy.interface.state_shapes:
        bodies["the first step of an episode"] = {ONE: observation, STATE: None}
    return {name: {"value": body} for name, body in bodies.items()}


def _answers(served: ServedPolicy) -> dict[str, Json]:
    action = element_schema(served.policy.action_space, sent=False)
    details, flag = {"type": "object"}, {"type": "boolean"}
    one = {"details": details, STATE: TEXT, "state_reset": flag}
    many = {
        "details": {"type": "array", "items": details},
        STATES: {"type": "array", "items": TEXT},
        "state_reset": {"type": "array", "items": flag},
    }
    answers = [record({"action": action}, one), record({"actions": {"type": "array", "items": action}}, many)]
    return {"anyOf": answers}
