"""What descriptions of the API are made of, whichever protocol they are of."""

from http import HTTPStatus

from serving.policy.spaces import Json

Paths = dict[str, Json]
"""OpenAPI's path items by their paths."""

TEXT = {"type": "string"}
LABELS = {"X-Model-Name": {"schema": TEXT}, "X-Model-Version": {"schema": {"type": "integer"}}}


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
    """Return an answer in JSON."""
    return {"description": description, "headers": LABELS, "content": {"application/json": {"schema": schema}}}


def html(description: str) -> dict[str, Json]:
    """Return an answer that is a page."""
    return {"description": description, "content": {"text/html": {"schema": TEXT}}}


def refused(schema: dict[str, Json], *statuses: int) -> dict[str, Json]:
    """Return the answers with these statuses, and those that any operation may give, in a protocol's own form."""
    content = {"application/json": {"schema": schema}}
    return {
        str(status): {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*statuses, 401, 500})
    }
