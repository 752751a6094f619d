"""The Open Inference Protocol, version 2, over Ray Serve's gRPC ingress.

Specification: github.com/kserve/open-inference-protocol, inference_grpc.md. Serve calls the method with the
name of the RPC.
"""

import functools
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue
from ray.serve.grpc_util import RayServegRPCContext as Context

from serving.experience.journal.records import INFERENCE_GRPC
from serving.policy.errors import PolicyFault
from serving.policy.spaces import Json
from serving.protocols.episodes import EpisodeReader, Source
from serving.protocols.open_inference.datatypes import DTYPES, InputTensor
from serving.protocols.open_inference.errors import InferenceInvalid
from serving.protocols.open_inference.http import server_metadata
from serving.protocols.open_inference.model import InferenceModel, InferenceRequest, check_parameters
from serving.protocols.open_inference.protos import inference_pb2 as pb
from serving.protocols.protocol import ErrorResponse
from serving.replica.auth import BearerToken
from serving.replica.errors import AnswerTooLate, BodyTooLarge
from serving.replica.metrics import Metrics
from serving.replica.pinned_versions import pin_of
from serving.replica.served_policy import ServedPolicy
from serving.telemetry.request_ids import accepted

Answer = TypeVar("Answer")

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


SERVING = 1
"""The status SERVING of the standard health check."""
CHECKED_SERVICES = ("", "inference.GRPCInferenceService")
"""The services whose health can be checked; the empty name is that of the whole server."""


class Application(Protocol):
    """What the RPCs need of the application that also answers HTTP."""

    max_body_bytes: int
    metrics: Metrics
    token: BearerToken | None
    episodes: EpisodeReader

    @property
    def served(self) -> ServedPolicy:
        """The policy that answers the next request."""

    def pinned(self, pin: bytes) -> tuple[ServedPolicy, bool]:
        """Return the policy for a pinned version, and whether it is of another version. Raises PinInvalid."""

    def check(self, served: ServedPolicy) -> None:
        """Raise VersionCrashed if a version has just ended another replica, and another one can answer."""

    async def answer_again(
        self,
        fault: PolicyFault | AnswerTooLate,
        served: ServedPolicy,
        answer: Callable[[ServedPolicy], Awaitable[Answer]],
    ) -> tuple[ServedPolicy, Answer]:
        """Return the policy that answers instead of `served`, and its answer. Raises `fault` if there is none."""

    def error_response(self, exception: Exception, request_id: str | None = None) -> ErrorResponse:
        """Count an error and return what the client receives."""


class InferenceServicer:
    """The protocol's RPCs, and the standard health check. A subclass sets `_app` in its constructor."""

    _app: Application

    async def Check(self, request: StringValue, grpc_context: Context) -> Int32Value:
        """Return that the server or a service of it is healthy; for an unknown service, the status is NOT_FOUND."""
        if request.value not in CHECKED_SERVICES:
            grpc_context.set_code(grpc.StatusCode.NOT_FOUND)
            grpc_context.set_details(f"no service '{request.value}' is offered here, only '{CHECKED_SERVICES[1]}'")
        return Int32Value(value=SERVING)

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
        with self._errors_as_status(grpc_context):
            self._chosen(grpc_context)
            return pb.ServerMetadataResponse(**server_metadata())
        return pb.ServerMetadataResponse()

    async def ModelReady(self, request: pb.ModelReadyRequest, grpc_context: Context) -> pb.ModelReadyResponse:
        """Return that a model is ready, if it is the served one; otherwise the status is NOT_FOUND."""
        with self._errors_as_status(grpc_context):
            model = self._chosen(grpc_context)[0].prepared(InferenceModel)
            model.check(request.name, request.version)
            return pb.ModelReadyResponse(ready=True)
        return pb.ModelReadyResponse()

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, grpc_context: Context) -> pb.ModelMetadataResponse:
        """Return the tensors of a model, if it is the served one; otherwise the status is NOT_FOUND."""
        with self._errors_as_status(grpc_context):
            model = self._chosen(grpc_context)[0].prepared(InferenceModel)
            model.check(request.name, request.version)
            return pb.ModelMetadataResponse(**model.metadata())
        return pb.ModelMetadataResponse()

    async def ModelInfer(self, request: pb.ModelInferRequest, grpc_context: Context) -> pb.ModelInferResponse:
        """Return the output tensors for input tensors."""
        start = time.perf_counter()
        with self._errors_as_status(grpc_context):
            served, repinned = self._chosen(grpc_context)
            if request.ByteSize() > self._app.max_body_bytes:
                raise BodyTooLarge(self._app.max_body_bytes)
            source = self._app.episodes.of_headers(INFERENCE_GRPC, _headers(grpc_context))
            try:
                self._app.check(served)
                response = await _infer(request, source, served)
            except (PolicyFault, AnswerTooLate) as fault:
                _, response = await self._app.answer_again(fault, served, functools.partial(_infer, request, source))
            if repinned:
                response.parameters["repinned"].bool_param = True
            self._app.metrics.request_ms.add((time.perf_counter() - start) * 1e3)
            return response
        return pb.ModelInferResponse()

    def _chosen(self, context: Context) -> tuple[ServedPolicy, bool]:
        """Return the policy that answers the call, and whether its version is another than the pinned one.

        Raises Unauthorized and PinInvalid.
        """
        headers = _headers(context)
        if self._app.token is not None:
            self._app.token.check("", headers)
        pin = pin_of(headers)
        return (self._app.served, False) if pin is None else self._app.pinned(pin)

    @contextmanager
    def _errors_as_status(self, context: Context) -> Iterator[None]:
        """Set the status of a call for an exception, which Serve would log as a failure of its own."""
        try:
            yield
        except Exception as exception:  # noqa: BLE001 - the client receives a status, the log the traceback
            error = self._app.error_response(exception, _request_id(context))
            context.set_code(CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT))
            context.set_details(error.message)


def _headers(context: Context) -> list[tuple[bytes, bytes]]:
    """Return the metadata of a call in the form of HTTP headers."""
    metadata = context.invocation_metadata() or ()
    return [(key.encode(), value.encode()) for key, value in metadata if isinstance(value, str)]


def _request_id(context: Context) -> str | None:
    """Return the identifier of a call, which the proxy puts into its metadata."""
    metadata = context.invocation_metadata() or ()
    return accepted(next((value for key, value in metadata if key == "request_id"), None))


async def _infer(request: pb.ModelInferRequest, source: Source, served: ServedPolicy) -> pb.ModelInferResponse:
    model = served.prepared(InferenceModel)
    model.check(request.model_name, request.model_version)
    parameters = {name: _parameter(each) for name, each in request.parameters.items()}
    for kind, tensors in (("inputs", request.inputs), ("outputs", request.outputs)):
        for index, tensor in enumerate(tensors):
            check_parameters(tensor.parameters, f"{kind}[{index}].parameters")
    names = [output.name for output in request.outputs]
    prepared = model.decode(InferenceRequest(request.id, parameters, _inputs(request), names), source)
    outputs = model.encode(prepared, await served.act(prepared.batch, prepared.origin))
    response = pb.ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
    if prepared.state_reset:
        response.parameters["state_reset"].bool_param = True
    raw = bool(request.raw_input_contents) or any(tensor.datatype not in CONTENTS for tensor in outputs)
    for tensor in outputs:
        added = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        if raw:
            response.raw_output_contents.append(tensor.array.tobytes())
        else:
            getattr(added.contents, CONTENTS[tensor.datatype]).extend(tensor.array.ravel().tolist())
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
