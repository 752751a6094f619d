"""The Open Inference Protocol, version 2, over HTTP: `/v2` and what is below it.

github.com/kserve/open-inference-protocol, inference_rest.md. One model is served: the one that the server is for.
"""

import functools
import importlib.metadata
from typing import NamedTuple

import orjson

from serving.policy.spaces import Json
from serving.protocols.errors import PathUnknown
from serving.protocols.open_inference import json_form as inference_json
from serving.protocols.open_inference.model import PLATFORM, InferenceModel
from serving.protocols.open_inference.paths import inference_paths
from serving.protocols.openapi.parts import Paths
from serving.protocols.protocol import Act, Answer, Refusal, Request
from serving.replica.served_policy import ServedPolicy

ROOT = "/v2"
MODELS = f"{ROOT}/models/"
READ, INFER = ("GET", "HEAD"), ("POST",)
PATHS = ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/NAME[/versions/VERSION][/ready or /infer]")
SERVER_NAME = "ray-serve-policies"
EXTENSIONS = ("binary_tensor_data",)


class ModelPath(NamedTuple):
    """What a path below `/v2/models/` names."""

    name: str
    version: str | None
    action: str
    """`infer`, `ready`, or nothing for the metadata."""


class InferenceProtocol:
    """Answers `/v2`, each request with the policy that it is given."""

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the methods of a path; one that isn't there is refused in this protocol's form, too."""
        if not path.startswith(ROOT) or path[len(ROOT) : len(ROOT) + 1] not in ("", "/"):
            return ()
        return INFER if path.endswith("/infer") else READ

    async def answer(self, request: Request, served: ServedPolicy, act: Act) -> Answer:
        """Answer a request. Raises ServingError."""
        model = served.inference
        if not request.path.startswith(MODELS):
            return _json(_about_the_server(request.path))
        named = _parse(request.path)
        model.check(named.name, named.version)
        if named.action == "infer":
            return await _infer(request, model, act)
        return _json({"name": model.name, "ready": True} if named.action == "ready" else describe(model))

    def refuse(self, refusal: Refusal) -> bytes:
        """Return an error as the protocol has it."""
        return orjson.dumps({"error": refusal.message})

    def paths(self, served: ServedPolicy) -> Paths:
        """Return OpenAPI's path items."""
        return inference_paths(served)


def server_version() -> str:
    """Return what the server's metadata has for its version: that of Ray Serve."""
    return importlib.metadata.version("ray")


def describe(model: InferenceModel) -> dict[str, Json]:
    """Return the metadata of a model."""
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": PLATFORM,
        "inputs": [tensor._asdict() for tensor in model.inputs],
        "outputs": [tensor._asdict() for tensor in model.outputs],
    }


async def _infer(request: Request, model: InferenceModel, act: Act) -> Answer:
    asked = inference_json.read(request.body, request.headers)
    prepared = model.prepare(asked.request)
    outputs = model.answer(prepared, await act(prepared.batch))
    response: dict[str, Json] = {"model_name": model.name, "model_version": model.version}
    if asked.request.id:
        response["id"] = asked.request.id
    if prepared.state_reset:
        response["parameters"] = {"state_reset": True}
    body, json_length = inference_json.write(response, outputs, asked)
    if json_length is None:
        return Answer(body)
    return Answer(body, b"application/octet-stream", headers=((inference_json.JSON_LENGTH, b"%d" % json_length),))


def _about_the_server(path: str) -> dict[str, Json]:
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


def _json(content: dict[str, Json]) -> Answer:
    return Answer(orjson.dumps(content))
