"""The OpenAPI description of the native protocol for one policy."""

from typing import Any

from serving.policy.spaces import Json
from serving.protocols.episodes import KEYS, PLURAL_KEYS
from serving.protocols.json_body import MAX_SEED
from serving.protocols.native.json_codec import MANY, ONE, STATE, STATES
from serving.protocols.openapi.json_schemas import element_schema, example
from serving.protocols.openapi.parts import (
    EPISODE_HEADERS,
    EPISODE_NAME,
    STEP,
    TEXT,
    Paths,
    error_references,
    get_operation,
    labelled,
    record,
)
from serving.replica.served_policy import ServedPolicy

NUMBER: dict[str, Json] = {"type": "number"}

ACT_STATUSES = (400, 413, 415, 422, 500, 503)


def native_paths(served: ServedPolicy, max_observations: int) -> Paths:
    """Return the path items of the native protocol."""
    act = {
        "summary": "Actions for observations",
        "parameters": EPISODE_HEADERS,
        "requestBody": {"required": True, "content": {"application/json": _requests(served, max_observations)}},
        "responses": {
            "200": labelled("The actions, as env.step takes them.", _responses(served)),
            **error_references(*ACT_STATUSES),
        },
    }
    status = {"enum": ["ok", "degraded", "refused", "stale"]}
    health = record({"status": status, "name": TEXT, "version": {"type": "integer"}})
    model = {"type": "object", "required": ["name", "version"]}
    return {
        "/": {
            "post": {**act, "operationId": "act"},
            "get": {**act, "operationId": "act_by_get", "description": "As POST: a GET may have a body here."},
        },
        "/model": {"get": get_operation("model", "The served version and the state of the replica", model)},
        "/health": {"get": get_operation("health", "Whether the replica has a policy", health)},
    }


def _requests(served: ServedPolicy, max_observations: int) -> dict[str, Json]:
    one = element_schema(served.policy.observation_space, sent=True)
    many = {"type": "array", "items": one, "maxItems": max_observations}
    options, state = _options(served), {"type": ["string", "null"]}
    named = dict(zip(KEYS, map(_or_null, (EPISODE_NAME, STEP, NUMBER)), strict=True))
    lists = {key: {"type": "array", "items": each} for key, each in zip(PLURAL_KEYS, named.values(), strict=True)}
    lists[STATES] = {"type": "array", "items": state}
    schemas = [record({ONE: one}, options | named | {STATE: state}), record({MANY: many}, options | lists)]
    return {"schema": {"anyOf": schemas}, "examples": _examples(served)}


def _or_null(schema: dict[str, Json]) -> dict[str, Json]:
    return schema | {"type": [schema["type"], "null"]}


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
        "a step of an episode": {ONE: observation, "episode": "robot-7", "step": 4, "reward": 1.0},
    }
    if served.policy.interface.noise:
        bodies["a sampled action"] = {ONE: observation, "explore": True, "seed": 7}
    if served.policy.interface.state_shapes:
        bodies["the first step of an episode"] = {ONE: observation, STATE: None}
    return {name: {"value": body} for name, body in bodies.items()}


def _responses(served: ServedPolicy) -> dict[str, Json]:
    action = element_schema(served.policy.action_space, sent=False)
    details, flag = {"type": "object"}, {"type": "boolean"}
    one = {"details": details, STATE: TEXT, "state_reset": flag}
    many = {
        "details": {"type": "array", "items": details},
        STATES: {"type": "array", "items": TEXT},
        "state_reset": {"type": "array", "items": flag},
    }
    plural = record({"actions": {"type": "array", "items": action}}, many)
    return {"anyOf": [record({"action": action}, one), plural]}
