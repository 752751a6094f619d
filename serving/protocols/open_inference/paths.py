"""The Open Inference Protocol in `/openapi.json`."""

from serving.policy.spaces import OBSERVATIONS, Json, leaves
from serving.protocols.native.json_codec import MAX_SEED
from serving.protocols.native.json_schemas import plain_example
from serving.protocols.open_inference.datatypes import DTYPES, TensorInfo
from serving.protocols.open_inference.model import InferenceModel
from serving.protocols.openapi.parts import TEXT, Paths, labelled, record, refused
from serving.replica.served_policy import ServedPolicy

ERROR = record({"error": TEXT})

LENGTHS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
FLAG = {"type": "boolean"}


def inference_paths(served: ServedPolicy) -> Paths:
    """Return the path items for one policy: a version in a path is the one that is served, or 404."""
    model = served.inference
    root = f"/v2/models/{model.name}"
    versioned = f"{root}/versions/{{version}}"
    tensors = {"type": "array", "items": record({"name": TEXT, "datatype": {"enum": [*DTYPES]}, "shape": _SHAPE})}
    metadata = record(
        {
            "name": {"const": model.name},
            "versions": {"type": "array", "items": TEXT},
            "platform": TEXT,
            "inputs": tensors,
            "outputs": tensors,
        }
    )
    ready = record({"name": {"const": model.name}, "ready": FLAG})
    server = record({"name": TEXT, "version": TEXT, "extensions": {"type": "array", "items": TEXT}})
    paths: Paths = {
        "/v2": {"get": _get("v2_server", "What the server is", server)},
        "/v2/health/live": {"get": _get("v2_live", "Whether the server is up", record({"live": FLAG}))},
        "/v2/health/ready": {
            "get": _get("v2_ready", "Whether there is a policy", record({"live": FLAG, "ready": FLAG}))
        },
    }
    for path, name, parameters in ((root, "v2_model", ()), (versioned, "v2_version", (_version(model),))):
        paths[path] = {"get": _get(name, "The model's inputs and outputs", metadata, parameters)}
        paths[f"{path}/ready"] = {"get": _get(f"{name}_ready", "Whether the model is loaded", ready, parameters)}
        paths[f"{path}/infer"] = {"post": _infer(f"{name}_infer", served, parameters)}
    return paths


_SHAPE = {"type": "array", "items": {"type": "integer", "minimum": -1}}


def _version(model: InferenceModel) -> dict[str, Json]:
    return {"name": "version", "in": "path", "required": True, "schema": TEXT, "example": model.version}


def _get(
    name: str, summary: str, schema: dict[str, Json], parameters: tuple[dict[str, Json], ...] = ()
) -> dict[str, Json]:
    responses = {"200": labelled(summary, schema), **refused(ERROR, *([404] if parameters else []))}
    return _with({"operationId": name, "summary": summary, "responses": responses}, parameters)


def _with(operation: dict[str, Json], parameters: tuple[dict[str, Json], ...]) -> dict[str, Json]:
    return operation | ({"parameters": [*parameters]} if parameters else {})


def _infer(name: str, served: ServedPolicy, parameters: tuple[dict[str, Json], ...]) -> dict[str, Json]:
    model = served.inference
    content = {"schema": _request(served), "examples": {"one observation": {"value": _example(served)}}}
    statuses = (400, 413, 422, 503, *([404] if parameters else []))
    operation = {
        "operationId": name,
        "summary": "Outputs for inputs",
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {"200": labelled("The outputs asked for.", _answer(model)), **refused(ERROR, *statuses)},
    }
    return _with(operation, parameters)


def _request(served: ServedPolicy) -> dict[str, Json]:
    model = served.inference
    options = {
        "explore": FLAG if served.policy.interface.noise else {"const": False},
        "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_SEED},
        "state_version": TEXT,
    }
    inputs = {"type": "array", "items": {"anyOf": [_input(each) for each in model.inputs]}, "minItems": 1}
    outputs = {"type": "array", "items": record({"name": {"enum": [each.name for each in model.outputs]}})}
    return record({"inputs": inputs}, {"id": TEXT, "parameters": record({}, options), "outputs": outputs})


def _input(tensor: TensorInfo) -> dict[str, Json]:
    named = {"name": {"const": tensor.name}, "datatype": {"const": tensor.datatype}}
    return record({**named, "shape": LENGTHS, "data": {"type": "array"}})


def _example(served: ServedPolicy) -> dict[str, Json]:
    """Return a request about one observation, where an episode begins: it needs no state."""
    zeros = {leaf.tensor(OBSERVATIONS): plain_example(leaf.space) for leaf in leaves(served.policy.observation_space)}
    inputs = [
        {"name": each.name, "datatype": each.datatype, "shape": [1, *each.shape[1:]], "data": [zeros[each.name]]}
        for each in served.inference.inputs
        if each.name in zeros
    ]
    return {"inputs": inputs}


def _answer(model: InferenceModel) -> dict[str, Json]:
    output = record({"name": TEXT, "datatype": {"enum": [*DTYPES]}, "shape": LENGTHS, "data": {"type": "array"}})
    labels = {"model_name": {"const": model.name}, "model_version": TEXT}
    outputs = {"type": "array", "items": output}
    return record({**labels, "outputs": outputs}, {"id": TEXT, "parameters": {"type": "object"}})
