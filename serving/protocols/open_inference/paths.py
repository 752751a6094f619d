"""The OpenAPI description of the Open Inference Protocol for one version."""

from serving.policy.spaces import Json, leaves, nearest_to_zero
from serving.policy.tensors import OBSERVATIONS
from serving.protocols.json_body import MAX_SEED
from serving.protocols.open_inference.datatypes import DTYPES, TensorInfo
from serving.protocols.open_inference.model import InferenceModel
from serving.protocols.openapi.parts import PIN, TEXT, Paths, error_responses, labelled, record
from serving.replica.served_policy import ServedPolicy

ERROR = record({"error": TEXT})
FLAG = {"type": "boolean"}


def _list(items: dict[str, Json]) -> dict[str, Json]:
    return {"type": "array", "items": items}


DATATYPE = {"enum": [*DTYPES]}
INFO = record({"name": TEXT, "datatype": DATATYPE, "shape": _list({"type": "integer", "minimum": -1})})
SHAPE = _list({"type": "integer", "minimum": 0})

OTHERS_IGNORED = {"additionalProperties": True}
PARAMETERS = {"type": "object", **OTHERS_IGNORED}
"""The parameters of one tensor."""

Parameters = tuple[dict[str, Json], ...]


def inference_paths(served: ServedPolicy) -> Paths:
    """Return the path items. A version in a path must be the served one; otherwise the status is 404."""
    model = served.prepared(InferenceModel)
    name = {"const": model.name}
    root = f"/v2/models/{model.name}"
    version = {"name": "version", "in": "path", "required": True, "schema": TEXT, "example": model.version}
    server = record({"name": TEXT, "version": TEXT, "extensions": _list(TEXT)})
    tensors = _list(INFO)
    metadata = record({"name": name, "versions": _list(TEXT), "platform": TEXT, "inputs": tensors, "outputs": tensors})
    model_ready = record({"name": name, "ready": FLAG})
    live, ready = record({"live": FLAG}), record({"live": FLAG, "ready": FLAG})
    paths: Paths = {
        "/v2": {"get": _get("v2_server", "Name, version and extensions of the server", server)},
        "/v2/health/live": {"get": _get("v2_live", "Whether the server is up", live)},
        "/v2/health/ready": {"get": _get("v2_ready", "Whether the server has a policy", ready)},
    }
    by_version = f"{root}/versions/{{version}}"
    for path, operation, parameters in ((root, "v2_model", ()), (by_version, "v2_version", (version,))):
        loaded = _get(f"{operation}_ready", "Whether the model is loaded", model_ready, parameters)
        paths[path] = {"get": _get(operation, "The model's inputs and outputs", metadata, parameters)}
        paths[f"{path}/ready"] = {"get": loaded}
        paths[f"{path}/infer"] = {"post": _infer(f"{operation}_infer", served, parameters)}
    return paths


def _get(name: str, summary: str, schema: dict[str, Json], parameters: Parameters = ()) -> dict[str, Json]:
    return {"operationId": name, "summary": summary, **_responses(labelled(summary, schema), parameters)}


def _infer(name: str, served: ServedPolicy, parameters: Parameters) -> dict[str, Json]:
    content = {"schema": _request(served), "examples": {"one observation": {"value": _example(served)}}}
    body = {"required": True, "content": {"application/json": content}}
    operation = {"operationId": name, "summary": "Outputs for inputs", "requestBody": body}
    success = labelled("The requested outputs.", _response(served.prepared(InferenceModel)))
    described = _responses(success, parameters, 400, 413, 415, 422, 503)
    return operation | described | {"parameters": [*parameters, PIN]}


def _responses(success: dict[str, Json], parameters: Parameters, *statuses: int) -> dict[str, Json]:
    """Return the responses of an operation and its parameters; one with parameters can have the status 404."""
    responses = {"200": success, **error_responses(ERROR, *statuses, *([404] if parameters else []))}
    return {"responses": responses, "parameters": [*parameters]}


def _request(served: ServedPolicy) -> dict[str, Json]:
    model = served.prepared(InferenceModel)
    options = {
        "explore": FLAG if served.policy.interface.noise else {"const": False},
        "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_SEED},
        "state_version": TEXT,
    }
    parameters = record({}, options) | OTHERS_IGNORED
    inputs = _list({"anyOf": [_input(each) for each in model.inputs]}) | {"minItems": 1}
    outputs = _list(record({"name": {"enum": [each.name for each in model.outputs]}}, {"parameters": PARAMETERS}))
    return record({"inputs": inputs}, {"id": TEXT, "parameters": parameters, "outputs": outputs})


def _input(tensor: TensorInfo) -> dict[str, Json]:
    named = {"name": {"const": tensor.name}, "datatype": {"const": tensor.datatype}}
    return record({**named, "shape": SHAPE, "data": {"type": "array"}}, {"parameters": PARAMETERS})


def _example(served: ServedPolicy) -> dict[str, Json]:
    """Return a request for one observation without a state, as at the start of an episode."""
    space = served.policy.observation_space
    examples = {leaf.tensor(OBSERVATIONS): nearest_to_zero(leaf.space).tolist() for leaf in leaves(space)}
    inputs = [
        {"name": each.name, "datatype": each.datatype, "shape": [1, *each.shape[1:]], "data": [examples[each.name]]}
        for each in served.prepared(InferenceModel).inputs
        if each.name in examples
    ]
    return {"inputs": inputs}


def _response(model: InferenceModel) -> dict[str, Json]:
    output = record({"name": TEXT, "datatype": DATATYPE, "shape": SHAPE, "data": {"type": "array"}})
    labels = {"model_name": {"const": model.name}, "model_version": TEXT}
    return record({**labels, "outputs": _list(output)}, {"id": TEXT, "parameters": {"type": "object"}})
