"""The Open Inference Protocol, version 2, over Ray Serve's gRPC ingress.

Specification: github.com/kserve/open-inference-protocol, inference_grpc.md. Serve calls the method that has
the name of the RPC.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

import grpc
from ray.serve.grpc_util import RayServegRPCContext as Context

from serving.policy.spaces import Json
from serving.protocols.open_inference.datatypes import DTYPES, InputTensor, OutputTensor
from serving.protocols.open_inference.errors import InferenceInvalid
from serving.protocols.open_inference.http import server_metadata
from serving.protocols.open_inference.model import InferenceModel, InferenceRequest
from serving.protocols.open_inference.protos import inference_pb2 as pb
from serving.protocols.protocol import ErrorResponse
from serving.replica.auth import BearerToken
from serving.replica.errors import BodyTooLarge
from serving.replica.metrics import Metrics
from serving.replica.served_policy import Act, ServedPolicy

CODES = {
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    # The status that gRPC itself uses for messages that are too large.
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.INTERNAL_SERVER_ERROR: grpc.StatusCode.INTERNAL,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
"""The gRPC status for each HTTP status; all others become INVALID_ARGUMENT."""

CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
"""The field that holds the elements of each datatype. FP16 has none: its tensors are raw bytes."""

Message = TypeVar("Message")


class Application(Protocol):
    """What the RPCs need of the application that also answers HTTP."""

    max_body_bytes: int
    metrics: Metrics
    token: BearerToken | None

    @property
    def served(self) -> ServedPolicy:
        """The policy that answers the next request."""

    def error_response(self, exception: Exception) -> ErrorResponse:
        """Count an error and return what the client receives."""


class InferenceServicer:
    """The protocol's RPCs. A subclass sets `_app` in its constructor."""

    _app: Application

    async def ServerLive(self, request: pb.ServerLiveRequest, grpc_context: Context) -> pb.ServerLiveResponse:
        """Return that the server is alive."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, grpc_context: Context) -> pb.ServerReadyResponse:
        """Return that the server is ready: a replica without a policy receives no requests."""
        return pb.ServerReadyResponse(ready=True)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, grpc_context: Context
    ) -> pb.ServerMetadataResponse:
        """Return the name, version and extensions of the server."""

        async def described(_: InferenceModel, __: Act) -> pb.ServerMetadataResponse:
            return pb.ServerMetadataResponse(**server_metadata())

        return await self._answer(described, pb.ServerMetadataResponse, grpc_context)

    async def ModelReady(self, request: pb.ModelReadyRequest, grpc_context: Context) -> pb.ModelReadyResponse:
        """Return that a model is ready, if it is the served one; otherwise the status is NOT_FOUND."""

        async def ready(model: InferenceModel, _: Act) -> pb.ModelReadyResponse:
            model.check(request.name, request.version)
            return pb.ModelReadyResponse(ready=True)

        return await self._answer(ready, pb.ModelReadyResponse, grpc_context)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, grpc_context: Context) -> pb.ModelMetadataResponse:
        """Return the tensors of a model, if it is the served one; otherwise the status is NOT_FOUND."""

        async def described(model: InferenceModel, _: Act) -> pb.ModelMetadataResponse:
            model.check(request.name, request.version)
            return pb.ModelMetadataResponse(**model.metadata())

        return await self._answer(described, pb.ModelMetadataResponse, grpc_context)

    async def ModelInfer(self, request: pb.ModelInferRequest, grpc_context: Context) -> pb.ModelInferResponse:
        """Return the output tensors for input tensors."""

        async def inferred(model: InferenceModel, act: Act) -> pb.ModelInferResponse:
            model.check(request.model_name, request.model_version)
            if request.ByteSize() > self._app.max_body_bytes:
                raise BodyTooLarge(self._app.max_body_bytes)
            return await _infer(request, model, act)

        start = time.perf_counter()
        response = await self._answer(inferred, pb.ModelInferResponse, grpc_context)
        if not grpc_context.code():
            self._app.metrics.request_ms.add((time.perf_counter() - start) * 1e3)
        return response

    async def _answer(
        self,
        answer: Callable[[InferenceModel, Act], Awaitable[Message]],
        empty: Callable[[], Message],
        context: Context,
    ) -> Message:
        """Return the response of one policy, or an empty one and set the status of the error.

        Serve would log an exception as a failure of its own.
        """
        served, token = self._app.served, self._app.token
        try:
            if token is not None:
                metadata = context.invocation_metadata()
                token.check("", [(key.encode(), value.encode()) for key, value in metadata if isinstance(value, str)])
            return await answer(served.prepared(InferenceModel), served.act)
        except Exception as exception:  # noqa: BLE001 - the client receives a status, the log the traceback
            error = self._app.error_response(exception)
            context.set_code(CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT))
            context.set_details(error.message)
            return empty()


async def _infer(request: pb.ModelInferRequest, model: InferenceModel, act: Act) -> pb.ModelInferResponse:
    parameters = {name: _parameter(each) for name, each in request.parameters.items()}
    names = [output.name for output in request.outputs]
    prepared = model.decode(InferenceRequest(request.id, parameters, _inputs(request), names))
    outputs = model.encode(prepared, await act(prepared.batch))
    response = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
    if prepared.state_reset:
        response.parameters["state_reset"].bool_param = True
    only_raw = any(tensor.datatype not in CONTENTS for tensor in outputs)
    _write(outputs, response, raw=only_raw or bool(request.raw_input_contents))
    return response


def _inputs(request: pb.ModelInferRequest) -> list[InputTensor]:
    raw, inputs = request.raw_input_contents, request.inputs
    if raw and len(raw) != len(inputs):
        raise InferenceInvalid("raw_input_contents", f"{len(raw)} tensors", f"{len(inputs)}, one per input")
    contents = zip(inputs, raw or map(_elements, inputs), strict=True)
    return [InputTensor(each.name, each.datatype, tuple(each.shape), elements) for each, elements in contents]


def _elements(tensor: Any) -> list[Json]:
    field = CONTENTS.get(tensor.datatype)
    if field is None and tensor.datatype in DTYPES:
        raise InferenceInvalid(tensor.name, f"{tensor.datatype} in contents", "raw_input_contents for that datatype")
    return list(getattr(tensor.contents, field)) if field else []


def _parameter(parameter: pb.InferParameter) -> Json:
    choice = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, choice) if choice else None


def _write(outputs: Iterable[OutputTensor], response: pb.ModelInferResponse, *, raw: bool) -> None:
    """Add tensors to a response, either raw or in the typed fields."""
    for tensor in outputs:
        added = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        if raw:
            response.raw_output_contents.append(tensor.array.tobytes())
        else:
            getattr(added.contents, CONTENTS[tensor.datatype]).extend(tensor.array.ravel().tolist())
