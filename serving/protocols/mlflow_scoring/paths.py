"""The OpenAPI description of MLflow's scoring protocol for one policy."""

from typing import Any

from gymnasium import Space

from serving.policy.spaces import Json, leaves, nearest_to_zero
from serving.policy.tensors import ACTION, OBSERVATIONS
from serving.protocols.openapi.json_schemas import element_schema
from serving.protocols.openapi.parts import PIN, TEXT, Paths, error_responses, labelled, record
from serving.replica.served_policy import ServedPolicy

ERROR = record({"error_code": TEXT, "message": TEXT}, {"request_id": TEXT})

TABLE = {"type": "array", "minItems": 1}


def scoring_paths(served: ServedPolicy) -> Paths:
    """Return the path items."""
    invocations = {
        "operationId": "invocations",
        "summary": "Actions, in the form of mlflow models serve",
        "parameters": [PIN],
        "requestBody": {"required": True, "content": _content(served.policy.observation_space)},
        "responses": {
            "200": labelled("All outputs of the policy by name.", _response(served.policy.action_space)),
            **error_responses(ERROR, 400, 413, 415, 422, 503),
        },
    }
    return {
        "/invocations": {"post": invocations},
        "/ping": {"get": _text_operation("ping", "Whether the server is up, in the form of mlflow models serve")},
        "/version": {"get": _text_operation("version", "The version of MLflow")},
    }


def _text_operation(name: str, summary: str) -> dict[str, Json]:
    # MLflow's content type is JSON although the body is not, so there is no schema.
    response = {"description": summary, "content": {"application/json": {}}}
    return {"operationId": name, "summary": summary, "responses": {"200": response, **error_responses(ERROR)}}


def _content(space: Space[Any]) -> dict[str, Json]:
    """Return the request's content by media type; CSV fits only a space that is one flat array."""
    tensors = {leaf.tensor(OBSERVATIONS): leaf.space for leaf in leaves(space)}
    lists = {name: TABLE | {"items": element_schema(leaf, sent=False)} for name, leaf in tensors.items()}
    examples: dict[str, Json] = {name: [nearest_to_zero(leaf).tolist()] for name, leaf in tensors.items()}
    only = next(iter(tensors)) if len(tensors) == 1 else None
    schema, inputs = (record(lists), examples) if only is None else (lists[only], examples[only])
    bodies = {"inputs": {"inputs": inputs}, "instances": {"instances": inputs}}
    content = {}
    if only is not None and len(tensors[only].shape or ()) == 1:
        (row,) = inputs
        header = [*range(len(row))]
        by_name = dict(zip(map(str, header), row, strict=True))
        bodies["dataframe_split"] = {"dataframe_split": {"columns": header, "data": inputs}}
        bodies["dataframe_records"] = {"dataframe_records": [by_name]}
        text = "".join(",".join(map(str, line)) + "\n" for line in (header, row))
        content["text/csv"] = {"schema": TEXT, "example": text}
    named = {name: {"value": body} for name, body in bodies.items()}
    return {"application/json": {"schema": _request(schema), "examples": named}, **content}


def _request(inputs: dict[str, Json]) -> dict[str, Json]:
    split = {"type": "object", "properties": {"columns": {"type": "array"}, "data": TABLE}, "required": ["data"]}
    records = TABLE | {"items": {"type": "object"}}
    forms = {"inputs": inputs, "instances": inputs, "dataframe_split": split, "dataframe_records": records}
    return {"anyOf": [record({form: schema}, {"params": {"type": "object"}}) for form, schema in forms.items()]}


def _response(space: Space[Any]) -> dict[str, Json]:
    actions = {leaf.tensor(ACTION): {"type": "array"} for leaf in leaves(space)}
    outputs = {"properties": actions, "required": [*actions], "additionalProperties": {"type": "array"}}
    return record({"predictions": {"type": "object", **outputs}})
