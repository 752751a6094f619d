"""The OpenAPI description of feedback."""

from typing import Any

from serving.policy.spaces import Json
from serving.protocols.feedback.events import ENDS, MAX_VERSION
from serving.protocols.openapi.json_schemas import element_schema
from serving.protocols.openapi.parts import EPISODE_NAME, STEP, Paths, error_references, labelled, record
from serving.replica.served_policy import ServedPolicy

STATUSES = (400, 413, 415, 422, 503)


def feedback_paths(served: ServedPolicy, max_events: int) -> Paths:
    """Return the path item of feedback."""
    event = _event(served)
    many = {"type": "array", "items": event, "maxItems": max_events}
    accepted = record({"accepted": {"type": "integer"}})
    examples: dict[str, dict[str, Any]] = {
        "the reward of a step": {"episode": "robot-7/2026-11-30", "rewards": [{"step": 3, "reward": 1.0}]},
        "the end of an episode": {"episode": "robot-7/2026-11-30", "return": 17.0, "length": 17, "done": "terminated"},
    }
    schema = {"anyOf": [event, record({"events": many})]}
    content = {"schema": schema, "examples": {name: {"value": value} for name, value in examples.items()}}
    post = {
        "operationId": "feedback",
        "summary": "Rewards, returns and ends of episodes",
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {"202": labelled("The reports are recorded.", accepted), **error_references(*STATUSES)},
    }
    return {"/feedback": {"post": post}}


def _event(served: ServedPolicy) -> dict[str, Json]:
    reward = record({"step": STEP, "reward": {"type": "number"}})
    optional = {
        "rewards": {"type": ["array", "null"], "items": reward},
        "return": {"type": ["number", "null"]},
        "length": {**STEP, "type": ["integer", "null"]},
        "done": {"enum": [*ENDS, None]},
        "version": {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_VERSION},
        "final_observation": {"anyOf": [element_schema(served.policy.observation_space, sent=True), {"type": "null"}]},
    }
    return record({"episode": EPISODE_NAME}, optional)
