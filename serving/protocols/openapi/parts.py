"""Building blocks of OpenAPI descriptions that all protocols share."""

from collections.abc import Iterable
from http import HTTPStatus

from serving.errors import HttpError
from serving.experience.episodes import MAX_EPISODE_LENGTH, MAX_STEP
from serving.policy.spaces import Json
from serving.protocols.protocol import INTERNAL_ERROR

Paths = dict[str, Json]
"""OpenAPI's path items by their paths."""

TEXT = {"type": "string"}
LABELS = {
    "X-Model-Name": {"schema": TEXT},
    "X-Model-Version": {"schema": {"type": "integer"}},
    "X-Repinned": {"schema": {"const": "true"}, "description": "Another version than the pinned one has answered."},
}
STEP: dict[str, Json] = {"type": "integer", "minimum": 0, "maximum": MAX_STEP}
EPISODE_NAME: dict[str, Json] = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_EPISODE_LENGTH,
    "pattern": "^[!-~]+$",
}
_VERSION: dict[str, Json] = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
EPISODE_HEADERS = [
    {"name": name, "in": "header", "description": description, "schema": schema}
    for name, description, schema in (
        ("X-Episode-Id", "The episode of the observation, by a name that the client chooses.", EPISODE_NAME),
        ("X-Episode-Step", "The step of the observation in its episode, from 0.", STEP),
        ("X-Episode-Reward", "The reward that followed the action of the step before.", {"type": "number"}),
        ("X-Pin-Version", "The X-Model-Version of the episode's last answer; it answers while it is loaded.", _VERSION),
    )
]
"""The parameters of every operation that computes actions."""

ANY_OPERATION = (HTTPStatus.UNAUTHORIZED, HTTPStatus.INTERNAL_SERVER_ERROR)
"""Statuses that every operation can have."""


def record(properties: dict[str, Json], optional: dict[str, Json] | None = None) -> dict[str, Json]:
    """Return the schema of an object with these members and no others."""
    optional = optional or {}
    return {
        "type": "object",
        "properties": properties | optional,
        "required": [*properties],
        "additionalProperties": False,
    }


def labelled(description: str, schema: dict[str, Json]) -> dict[str, Json]:
    """Return a JSON response with the headers that name the model and its version."""
    return {"description": description, "headers": LABELS, "content": {"application/json": {"schema": schema}}}


def html(description: str) -> dict[str, Json]:
    """Return a response that is a page."""
    return {"description": description, "content": {"text/html": {"schema": TEXT}}}


def error_responses(schema: dict[str, Json], *statuses: int) -> dict[str, Json]:
    """Return error responses in a protocol's own form, for these statuses and those that any operation can have."""
    content = {"application/json": {"schema": schema}}
    return {
        str(int(status)): {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*statuses, *ANY_OPERATION})
    }


def error_references(*statuses: int) -> dict[str, Json]:
    """Return the same as `error_responses` in the native form: references to `error_components`."""
    return {
        str(int(status)): {"$ref": f"#/components/responses/{HTTPStatus(status).name}"}
        for status in sorted({*statuses, *ANY_OPERATION})
    }


def error_components(errors: Iterable[type[HttpError]]) -> dict[str, Json]:
    """Return OpenAPI's response components for errors in the native form, by the name of their status."""
    codes: dict[HTTPStatus, list[str]] = {HTTPStatus.INTERNAL_SERVER_ERROR: [INTERNAL_ERROR]}
    for error in errors:
        codes.setdefault(error.status, []).append(error.code)
    return {status.name: _error_component(status, sorted(names)) for status, names in codes.items()}


def get_operation(name: str, summary: str, schema: dict[str, Json]) -> dict[str, Json]:
    """Return a GET operation with a JSON response, and errors in the native form."""
    responses = {"200": labelled(summary, schema), **error_references()}
    return {"operationId": name, "summary": summary, "responses": responses}


def _error_component(status: HTTPStatus, codes: list[str]) -> dict[str, Json]:
    error = record({"code": {"enum": codes}, "message": TEXT}, {"request_id": TEXT})
    content = {"application/json": {"schema": record({"error": error})}}
    return {"description": f"{status.phrase}: {', '.join(codes)}", "content": content}
