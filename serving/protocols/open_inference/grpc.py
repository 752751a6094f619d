"""The Open Inference Protocol, version 2, over gRPC, on Ray Serve's gRPC ingress.

github.com/kserve/open-inference-protocol, inference_grpc.md. Serve finds an RPC's method by its name.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeVar

import grpc
from ray.serve.grpc_util import RayServegRPCContext

from serving.http.app import PolicyApp
from serving.policy.spaces import Json
from serving.protocols.open_inference.datatypes import DTYPES, InputTensor, OutputTensor, TensorInfo
from serving.protocols.open_inference.errors import InferenceInvalid
from serving.protocols.open_inference.http import EXTENSIONS, SERVER_NAME, server_version
from serving.protocols.open_inference.model import PLATFORM, InferenceModel, InferenceRequest
from serving.protocols.open_inference.protos import inference_pb2 as pb
from serving.protocols.protocol import Act
from serving.replica.errors import BodyTooLarge

CODES = {
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    # As gRPC itself says of messages that are too large.
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.INTERNAL_SERVER_ERROR: grpc.StatusCode.INTERNAL,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
"""What gRPC calls a status of HTTP; any other is INVALID_ARGUMENT."""

CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
"""The field of each datatype's elements; FP16 has none and comes as bytes only."""

Response = TypeVar("Response")


class InferenceServicer:
    """The protocol's RPCs, answered by an application that also answers HTTP."""

    _app: PolicyApp

    async def ServerLive(
        self,
        request: pb.ServerLiveRequest,  # noqa: ARG002
        grpc_context: RayServegRPCContext,  # noqa: ARG002
    ) -> pb.ServerLiveResponse:
        """Say that this server is alive."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self,
        request: pb.ServerReadyRequest,  # noqa: ARG002
        grpc_context: RayServegRPCContext,  # noqa: ARG002
    ) -> pb.ServerReadyResponse:
        """Say that this server is ready: before it has a policy, it takes no requests."""
        return pb.ServerReadyResponse(ready=True)

    async def ServerMetadata(
        self,
        request: pb.ServerMetadataRequest,  # noqa: ARG002
        grpc_context: RayServegRPCContext,
    ) -> pb.ServerMetadataResponse:
        """Say what this server is."""

        async def described(_: InferenceModel, __: Act) -> pb.ServerMetadataResponse:
            return pb.ServerMetadataResponse(name=SERVER_NAME, version=server_version(), extensions=EXTENSIONS)

        return await self._answer(described, pb.ServerMetadataResponse, grpc_context)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, grpc_context: RayServegRPCContext
    ) -> pb.ModelReadyResponse:
        """Say that a model is ready, if it is the one that is served."""

        async def ready(model: InferenceModel, _: Act) -> pb.ModelReadyResponse:
            model.check(request.name, request.version)
            return pb.ModelReadyResponse(ready=True)

        return await self._answer(ready, pb.ModelReadyResponse, grpc_context)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, grpc_context: RayServegRPCContext
    ) -> pb.ModelMetadataResponse:
        """Describe the tensors of a model, if it is the one that is served."""

        async def described(model: InferenceModel, _: Act) -> pb.ModelMetadataResponse:
            model.check(request.name, request.version)
            return _describe(model)

        return await self._answer(described, pb.ModelMetadataResponse, grpc_context)

    async def ModelInfer(
        self, request: pb.ModelInferRequest, grpc_context: RayServegRPCContext
    ) -> pb.ModelInferResponse:
        """Return tensors for tensors."""

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
        answer: Callable[[InferenceModel, Act], Awaitable[Response]],
        empty: Callable[[], Response],
        context: RayServegRPCContext,
    ) -> Response:
        """Return an answer of one policy from first to last, or an empty one beside a status that says what is wrong.

        Serve would log an exception as a failure of its own.
        """
        served, token = self._app.served, self._app.token
        try:
            if token is not None:
                token.check("", _headers(context))
            return await answer(served.inference, self._app.act_for(served))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a status and the log the rest
            refusal = self._app.refusal_of(error)
            context.set_code(CODES.get(refusal.status, grpc.StatusCode.INVALID_ARGUMENT))
            context.set_details(refusal.message)
            return empty()


def _headers(context: RayServegRPCContext) -> list[tuple[bytes, bytes]]:
    """Return the call's metadata in HTTP's form."""
    return [(key.encode(), value.encode()) for key, value in context.invocation_metadata() if isinstance(value, str)]


async def _infer(request: pb.ModelInferRequest, model: InferenceModel, act: Act) -> pb.ModelInferResponse:
    parameters = {name: _parameter(each) for name, each in request.parameters.items()}
    names = [output.name for output in request.outputs]
    prepared = model.prepare(InferenceRequest(request.id, parameters, _inputs(request), names))
    outputs = model.answer(prepared, await act(prepared.batch))
    response = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
    if prepared.state_reset:
        response.parameters["state_reset"].bool_param = True
    _write(outputs, response, raw=bool(request.raw_input_contents) or any(_only_raw(each) for each in outputs))
    return response


def _inputs(request: pb.ModelInferRequest) -> list[InputTensor]:
    raw = request.raw_input_contents
    if not raw:
        return [_input(each, _elements(each)) for each in request.inputs]
    if len(raw) != len(request.inputs):
        raise InferenceInvalid("raw_input_contents", f"{len(raw)} tensors", f"{len(request.inputs)}, one per input")
    return [_input(each, content) for each, content in zip(request.inputs, raw, strict=True)]


def _input(tensor: Any, elements: bytes | list[Json]) -> InputTensor:
    return InputTensor(tensor.name, tensor.datatype, tuple(tensor.shape), elements)


def _elements(tensor: Any) -> list[Json]:
    field = CONTENTS.get(tensor.datatype)
    if field is None and tensor.datatype in DTYPES:
        raise InferenceInvalid(tensor.name, f"{tensor.datatype} in contents", "raw_input_contents for that datatype")
    return list(getattr(tensor.contents, field)) if field else []


def _parameter(parameter: pb.InferParameter) -> Json:
    choice = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, choice) if choice else None


def _only_raw(tensor: OutputTensor) -> bool:
    return tensor.datatype not in CONTENTS


def _write(outputs: Iterable[OutputTensor], response: pb.ModelInferResponse, *, raw: bool) -> None:
    """Add tensors to a response, in the form that the request had."""
    for tensor in outputs:
        added = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        if raw:
            response.raw_output_contents.append(tensor.array.tobytes())
        else:
            getattr(added.contents, CONTENTS[tensor.datatype]).extend(tensor.array.ravel().tolist())


def _describe(model: InferenceModel) -> pb.ModelMetadataResponse:
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=[model.version],
        platform=PLATFORM,
        inputs=map(_metadata, model.inputs),
        outputs=map(_metadata, model.outputs),
    )


def _metadata(tensor: TensorInfo) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
