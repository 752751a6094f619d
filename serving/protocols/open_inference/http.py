"""The Open Inference Protocol, version 2, over HTTP: the paths below `/v2`.

Specification: github.com/kserve/open-inference-protocol, inference_rest.md. The server has one model.
"""

import functools
import importlib.metadata

import orjson

from serving.experience.journal.records import INFERENCE_HTTP
from serving.policy.spaces import Json
from serving.protocols.episodes import EpisodeReader, Source, episode_of
from serving.protocols.errors import PathUnknown
from serving.protocols.open_inference.json_form import JSON_LENGTH, read_request, write_response
from serving.protocols.open_inference.model import InferenceModel
from serving.protocols.open_inference.paths import inference_paths
from serving.protocols.openapi.parts import Paths
from serving.protocols.protocol import ErrorResponse, Protocol, Request, Response
from serving.replica.served_policy import Act, ServedPolicy

ROOT = "/v2"
MODELS = f"{ROOT}/models/"
READ, INFER = ("GET", "HEAD"), ("POST",)
PATHS = ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/NAME[/versions/VERSION][/ready or /infer]")


class InferenceProtocol(Protocol):
    """Answers the paths below `/v2`. `episodes` reads which episode a request names."""

    def __init__(self, episodes: EpisodeReader = EpisodeReader()) -> None:  # noqa: B008 - immutable
        self._episodes = episodes

    def methods(self, path: str) -> tuple[str, ...]:
        """Return the HTTP methods of a path. Unknown paths below `/v2` have some, to get errors in this form."""
        if path != ROOT and not path.startswith("/v2/"):
            return ()
        return INFER if path.endswith("/infer") else READ

    def prepare(self, served: ServedPolicy) -> None:
        """Make the model of a version."""
        served.prepared(InferenceModel)

    async def answer(self, request: Request, served: ServedPolicy) -> Response:
        """Answer a request. Raises ServingError."""
        if not request.path.startswith(MODELS):
            return Response(orjson.dumps(_server_information(request.path)))
        model, (name, version, action) = served.prepared(InferenceModel), _parse(request.path)
        model.check(name, version)
        if action == "infer":
            source = self._episodes.of_headers(INFERENCE_HTTP, request.scope["headers"])
            return await _infer(request, model, served.act, source)
        return Response(orjson.dumps({"name": name, "ready": True} if action == "ready" else model.metadata()))

    def episode(self, request: Request) -> str | None:
        """Return the name of the episode in the header of an inference whose path names no version."""
        if not request.path.startswith(MODELS):
            return None
        _, version, action = _parse(request.path)
        return episode_of(request.scope["headers"]) if action == "infer" and version is None else None

    def error_body(self, error: ErrorResponse) -> bytes:
        """Return the JSON body of an error in the protocol's form."""
        return orjson.dumps({"error": error.message})

    def paths(self, served: ServedPolicy) -> Paths:
        """Return OpenAPI's path items."""
        return inference_paths(served)


def server_metadata() -> dict[str, Json]:
    """Return the members of the protocol's server metadata response; the version is that of Ray."""
    version = importlib.metadata.version("ray")
    return {"name": "ray-serve-policies", "version": version, "extensions": ["binary_tensor_data"]}


async def _infer(request: Request, model: InferenceModel, act: Act, source: Source) -> Response:
    read = read_request(request.body, request.headers)
    decoded = model.decode(read.request, source)
    outputs = model.encode(decoded, await act(decoded.batch, decoded.origin))
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
        return server_metadata()
    if path == f"{ROOT}/health/live":
        return {"live": True}
    if path == f"{ROOT}/health/ready":
        return {"live": True, "ready": True}
    raise PathUnknown(path, PATHS)


@functools.lru_cache(maxsize=64)
def _parse(path: str) -> tuple[str, str | None, str]:
    """Return the model's name, its version if given, and the action: `infer`, `ready`, or "" for the metadata."""
    name, *rest = path.removeprefix(MODELS).split("/")
    version = None
    if rest[:1] == ["versions"] and len(rest) > 1 and rest[1]:
        version, rest = rest[1], rest[2:]
    if rest not in ([], ["ready"], ["infer"]):
        raise PathUnknown(path, PATHS)
    return name, version, "".join(rest)
