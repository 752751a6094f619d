"""MLflow's scoring protocol in `/openapi.json`."""

from typing import Any

from gymnasium import Space

from serving.policy.spaces import ACTION, OBSERVATIONS, Json, Leaf, leaves
from serving.protocols.native.json_schemas import element_schema, plain_example
from serving.protocols.openapi.parts import TEXT, Paths, labelled, record, refused
from serving.replica.served_policy import ServedPolicy

ERROR = record({"error_code": TEXT, "message": TEXT})

TABLE = {"type": "array", "minItems": 1}


def scoring_paths(served: ServedPolicy) -> Paths:
    """Return the path items for one policy."""
    observations = served.policy.observation_space
    content: dict[str, Json] = {
        "application/json": {"schema": _request(observations), "examples": _examples(observations)}
    }
    found = leaves(observations)
    if _flat(found):
        numbers = plain_example(found[0].space)
        rows = (map(str, range(len(numbers))), map(str, numbers))
        content["text/csv"] = {"schema": TEXT, "example": "".join(",".join(row) + "\n" for row in rows)}
    return {
        "/invocations": {
            "post": {
                "operationId": "invocations",
                "summary": "Actions, as mlflow models serve gives them",
                "requestBody": {"required": True, "content": content},
                "responses": {
                    "200": labelled("All outputs of the policy, by name.", _answer(served.policy.action_space)),
                    **refused(ERROR, 400, 413, 415, 503),
                },
            }
        },
        "/ping": {"get": _text("ping", "Whether the server is up, as mlflow models serve says it")},
        "/version": {"get": _text("version", "The version of MLflow")},
    }


def _text(name: str, summary: str) -> dict[str, Json]:
    # MLflow calls it JSON, which it isn't: it has no schema.
    answer = {"description": summary, "content": {"application/json": {}}}
    return {"operationId": name, "summary": summary, "responses": {"200": answer, **refused(ERROR)}}


def _flat(found: tuple[Leaf, ...]) -> bool:
    return len(found) == 1 and len(found[0].space.shape or ()) == 1


def _request(space: Space[Any]) -> dict[str, Json]:
    found = leaves(space)
    arrays = {leaf.tensor(OBSERVATIONS): _many(leaf) for leaf in found}
    inputs = next(iter(arrays.values())) if len(found) == 1 else record(arrays)
    split = {"type": "object", "properties": {"columns": {"type": "array"}, "data": TABLE}, "required": ["data"]}
    records = TABLE | {"items": {"type": "object"}}
    forms = {"inputs": inputs, "instances": inputs, "dataframe_split": split, "dataframe_records": records}
    return {"anyOf": [record({form: schema}, {"params": {"type": "object"}}) for form, schema in forms.items()]}


def _many(leaf: Leaf) -> dict[str, Json]:
    return {"type": "array", "minItems": 1, "items": element_schema(leaf.space, sent=False)}


def _examples(space: Space[Any]) -> dict[str, Json]:
    found = leaves(space)
    arrays = {leaf.tensor(OBSERVATIONS): [plain_example(leaf.space)] for leaf in found}
    inputs: Json = next(iter(arrays.values())) if len(found) == 1 else arrays
    bodies: dict[str, Json] = {"inputs": {"inputs": inputs}, "instances": {"instances": inputs}}
    if _flat(found):
        columns = [*range(len(inputs[0]))]
        bodies["dataframe_split"] = {"dataframe_split": {"columns": columns, "data": inputs}}
        record_of = {str(column): number for column, number in zip(columns, inputs[0], strict=True)}
        bodies["dataframe_records"] = {"dataframe_records": [record_of]}
    return {name: {"value": body} for name, body in bodies.items()}


def _answer(space: Space[Any]) -> dict[str, Json]:
    actions = {leaf.tensor(ACTION): {"type": "array"} for leaf in leaves(space)}
    others = {
        "type": "object",
        "properties": actions,
        "required": [*actions],
        "additionalProperties": {"type": "array"},
    }
    return record({"predictions": others})
