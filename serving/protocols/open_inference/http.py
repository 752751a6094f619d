"""The Open Inference Protocol, version 2, over HTTP: the paths below `/v2`.

Specification: github.com/kserve/open-inference-protocol, inference_rest.md. The server has one model.
"""

import functools
import importlib.metadata
from typing import NamedTuple

import orjson

from serving.policy.spaces import Json
from serving.protocols.errors import PathUnknown
from serving.protocols.open_inference.json_form import JSON_LENGTH, read_request, write_response
from serving.protocols.open_inference.model import PLATFORM, InferenceModel
from serving.protocols.open_inference.paths import inference_paths
from serving.protocols.openapi.parts import Paths
from serving.protocols.protocol import ErrorResponse, Protocol, Request, Response
from serving.replica.served_policy import Act, ServedPolicy

ROOT = "/v2"
MODELS = f"{ROOT}/models/"
READ, INFER = ("GET", "HEAD"), ("POST",)
PATHS = ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/NAME[/versions/VERSION][/ready or /infer]")
SERVER_NAME = "ray-serve-policies"
EXTENSIONS = ("binary_tensor_data",)


class ModelPath(NamedTuple):
    """The parts of a path below `/v2/models/`."""

    name: str
    version: str | None
    action: str
    """`infer`, `ready`, or empty for the metadata."""


class InferenceProtocol(Protocol):
    """Answers the paths below `/v2`."""

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods of a path. Unknown paths below `/v2` have some, to get errors in this form."""
        if not path.startswith(ROOT) or path[len(ROOT) : len(ROOT) + 1] not in ("", "/"):
            return ()
        return INFER if path.endswith("/infer") else READ

    def prepare(self, served: ServedPolicy) -> None:
        """Make the model of a version."""
        served.prepared(InferenceModel)

    async def answer(self, request: Request, served: ServedPolicy, act: Act) -> Response:
        """Answer a request. Raises ServingError."""
        if not request.path.startswith(MODELS):
            return _json(_server_information(request.path))
        model, requested = served.prepared(InferenceModel), _parse(request.path)
        model.check(requested.name, requested.version)
        if requested.action == "infer":
            return await _infer(request, model, act)
        return _json({"name": model.name, "ready": True} if requested.action == "ready" else _metadata(model))

    def error_body(self, error: ErrorResponse) -> bytes:
        """Return the JSON body of an error in the protocol's form."""
        return orjson.dumps({"error": error.message})

    def paths(self, served: ServedPolicy) -> Paths:
        """Return OpenAPI's path items."""
        return inference_paths(served)


def server_version() -> str:
    """Return the version in the server's metadata, which is the version of Ray."""
    return importlib.metadata.version("ray")


def _metadata(model: InferenceModel) -> dict[str, Json]:
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [tensor._asdict() for tensor in model.inputs],
        "outputs": [tensor._asdict() for tensor in model.outputs],
    }


async def _infer(request: Request, model: InferenceModel, act: Act) -> Response:
    read = read_request(request.body, request.headers)
    decoded = model.decode(read.request)
    outputs = model.encode(decoded, await act(decoded.batch))
    response: dict[str, Json] = {"model_name": model.name, "model_version": model.version}
    if read.request.id:
        response["id"] = read.request.id
    if decoded.state_reset:
        response["parameters"] = {"state_reset": True}
    body, json_length = write_response(response, outputs, read)
    if json_length is None:
        return Response(body)
    return Response(body, b"application/octet-stream", headers=((JSON_LENGTH, b"%d" % json_length),))


def _server_information(path: str) -> dict[str, Json]:
    if path == ROOT:
        return {"name": SERVER_NAME, "version": server_version(), "extensions": EXTENSIONS}
    if path == f"{ROOT}/health/live":
        return {"live": True}
    if path == f"{ROOT}/health/ready":
        return {"live": True, "ready": True}
    raise PathUnknown(path, PATHS)


@functools.lru_cache(maxsize=64)
def _parse(path: str) -> ModelPath:
    name, *rest = path.removeprefix(MODELS).split("/")
    version = None
    if rest[:1] == ["versions"] and len(rest) > 1:
        version, rest = rest[1], rest[2:]
    if rest not in ([], ["ready"], ["infer"]):
        raise PathUnknown(path, PATHS)
    return ModelPath(name, version, "".join(rest))


def _json(content: dict[str, Json]) -> Response:
    return Response(orjson.dumps(content))
