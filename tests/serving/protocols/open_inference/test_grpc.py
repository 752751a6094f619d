"""The Open Inference Protocol's RPCs on a real gRPC server; tests/serving/commands/test_run.py uses Serve's."""

import asyncio
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.arguments import Arguments
from serving.experience.episodes import EpisodeHasher
from serving.experience.journal.journal import Journal
from serving.experience.journal.segments import Place
from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.policy.errors import PolicyFailed
from serving.protocols.open_inference.grpc import InferenceServicer
from serving.protocols.open_inference.grpc_service import add_GRPCInferenceServiceServicer_to_server
from serving.protocols.open_inference.protos import inference_pb2 as pb
from serving.replica.auth import BearerToken
from tests.serving import asking
from tests.serving.asking import served
from tests.serving.experience.reading import decisions
from tests.serving.experiment import CHALLENGERS, CHAMPIONS, challenge, champion, experiment
from tests.serving.failing import FAILING, FATAL_OBSERVATION
from tests.serving.grpc_stub import SERVING, Stub, check_health
from tests.serving.policies import (
    CARTPOLE_BUNDLE,
    CONTRARY_BUNDLE,
    COUNTING_BUNDLE,
    EXPLORING_BUNDLE,
    ROBOT_BUNDLE,
    STEERING_BUNDLE,
)


class Servicer(InferenceServicer):
    def __init__(self, app: PolicyApp) -> None:
        self._app = app


class Server:
    """A gRPC server in its own thread."""

    def __init__(self, app: PolicyApp) -> None:
        self._servicer = Servicer(app)
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        self._up.wait(10)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self._port}")

    def stop(self) -> None:
        self.channel.close()
        self._loop.call_soon_threadsafe(self._down.set)
        self._thread.join()

    async def _run(self) -> None:
        server = grpc.aio.server()
        add_GRPCInferenceServiceServicer_to_server(self._servicer, server)
        self._port = server.add_insecure_port("127.0.0.1:0")
        self._loop, self._down = asyncio.get_running_loop(), asyncio.Event()
        await server.start()
        self._up.set()
        await self._down.wait()
        await server.stop(None)


@pytest.fixture
def serve_grpc() -> Iterator[Callable[[PolicyApp], Any]]:
    """Serve an application over gRPC; returns its client."""
    servers: list[Server] = []

    def start(app: PolicyApp) -> Any:
        servers.append(Server(app))
        return Stub(servers[-1].channel)

    yield start
    for server in servers:
        server.stop()


def request(*shape: int, raw: bytes | None = None, floats: list[float] | None = None, **more: Any) -> Any:
    tensor = pb.ModelInferRequest.InferInputTensor(name="observations", datatype="FP32", shape=shape)
    if floats is not None:
        tensor.contents.fp32_contents.extend(floats)
    contents = [] if raw is None else [raw]
    more = {"model_name": "cartpole-ppo"} | more
    return pb.ModelInferRequest(inputs=[tensor], raw_input_contents=contents, **more)


def outputs(*names: str) -> list[Any]:
    return [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names]


def test_server_and_model_are_described(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    stub = serve_grpc(PolicyApp(served()))
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="cartpole-ppo", version="3")).ready
    assert stub.ServerMetadata(pb.ServerMetadataRequest()).extensions == ["binary_tensor_data"]
    model = stub.ModelMetadata(pb.ModelMetadataRequest(name="cartpole-ppo"))
    assert (model.name, model.versions, model.platform) == ("cartpole-ppo", ["3"], "onnx_onnxv1")
    assert [(each.name, each.datatype, each.shape) for each in model.inputs] == [("observations", "FP32", [-1, 4])]
    assert [each.name for each in model.outputs] == ["action", "action_dist_inputs"]


@pytest.mark.parametrize("service", [b"", b"inference.GRPCInferenceService"])
def test_the_standard_health_check_needs_no_token(serve_grpc: Callable[[PolicyApp], Any], service: bytes) -> None:
    stub = serve_grpc(PolicyApp(served(), token=BearerToken("s3cret-0123")))
    assert check_health(stub.channel, service) == SERVING


def test_the_health_of_an_unknown_service_is_not_found(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        check_health(serve_grpc(PolicyApp(served())).channel, b"other")
    assert refused.value.code() == CODE.NOT_FOUND
    assert refused.value.details() == "no service 'other' is offered here, only 'inference.GRPCInferenceService'"


def test_bytes_are_answered_with_bytes(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    stub = serve_grpc(PolicyApp(served()))
    asked = request(2, 4, raw=struct.pack("<8f", 0, 0, 1, 0, 0, 0, -1, 0), id="7", outputs=outputs("action"))
    answer = stub.ModelInfer(asked)
    assert (answer.model_name, answer.model_version, answer.id) == ("cartpole-ppo", "3", "7")
    assert [(each.name, each.datatype, each.shape) for each in answer.outputs] == [("action", "INT64", [2])]
    assert [struct.unpack("<2q", each) for each in answer.raw_output_contents] == [(1, 0)]


def test_numbers_are_answered_with_numbers(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    answer = serve_grpc(PolicyApp(served())).ModelInfer(request(1, 4, floats=[0, 0, 1, 0]))
    action, inputs = answer.outputs
    assert (action.contents.int64_contents, inputs.contents.fp32_contents) == ([1], [0, 5])
    assert not answer.raw_output_contents


def test_parameters_have_their_types(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    stub = serve_grpc(PolicyApp(served(EXPLORING_BUNDLE)))
    parameters = {"explore": pb.InferParameter(bool_param=True), "seed": pb.InferParameter(uint64_param=2**64 - 1)}
    asked = request(9, 4, floats=[0] * 36, parameters=parameters, outputs=outputs("action"))
    one, same = (stub.ModelInfer(asked).outputs[0].contents.int64_contents for _ in range(2))
    assert one == same
    assert set(one) == {0, 1}


def test_parameters_that_belong_to_other_servers_are_ignored(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    content_type = {"content_type": pb.InferParameter(string_param="np")}
    asked = request(1, 4, floats=[0, 0, 1, 0], parameters=content_type)
    asked.outputs.add(name="action", parameters=content_type)
    asked.inputs[0].parameters["content_type"].string_param = "np"
    (action,) = serve_grpc(PolicyApp(served())).ModelInfer(asked).outputs
    assert action.contents.int64_contents == [1]


def test_a_response_reports_a_state_that_was_reset(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    stub = serve_grpc(PolicyApp(served(COUNTING_BUNDLE)))
    asked = request(1, 1, floats=[2], parameters={"state_version": pb.InferParameter(string_param="2")})
    asked.inputs.add(name="state_in.sum", datatype="FP32", shape=[1, 1]).contents.fp32_contents.append(5)
    answer = stub.ModelInfer(asked)
    assert answer.parameters["state_reset"].bool_param
    (summed,) = [each for each in answer.outputs if each.name == "state_out.sum"]
    assert summed.contents.fp32_contents == [2]


def test_every_kind_of_integer_is_read_and_written(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    asked = pb.ModelInferRequest(model_name="cartpole-ppo", outputs=outputs("action.flags.0", "action.flags.1"))
    for name, datatype, shape, field, numbers in (
        ("observations.arm.grip", "INT64", [1], "int64_contents", [-1]),
        ("observations.arm.position", "FP64", [1, 3], "fp64_contents", [0.5, 0, 1]),
        ("observations.goal.0", "UINT8", [1, 2, 2], "uint_contents", [0, 1, 2, 255]),
        ("observations.goal.1", "UINT64", [1, 2], "uint64_contents", [2, 1]),
        ("observations.switches", "BOOL", [1, 2], "bool_contents", [True, False]),
    ):
        tensor = asked.inputs.add(name=name, datatype=datatype, shape=shape)
        getattr(tensor.contents, field).extend(numbers)
    answer = serve_grpc(PolicyApp(served(ROBOT_BUNDLE))).ModelInfer(asked)
    assert [each.contents.int_contents or each.contents.int64_contents for each in answer.outputs] == [[1, 0], [1, 1]]


CODE = grpc.StatusCode
CLASSES = pb.ModelInferRequest.InferRequestedOutputTensor(
    name="action", parameters={"classification": pb.InferParameter(int64_param=2)}
)
FP16 = pb.ModelInferRequest.InferInputTensor(name="observations", datatype="FP16", shape=[1, 4])


@pytest.mark.parametrize(
    ("bundle", "asked", "code", "message"),
    [
        (
            CARTPOLE_BUNDLE,
            request(1, 3, floats=[0, 0, 0]),
            CODE.INVALID_ARGUMENT,
            "observations has shape (1, 3), expected (batch, 4) float32",
        ),
        (
            CARTPOLE_BUNDLE,
            request(1, 4, raw=b"1234"),
            CODE.INVALID_ARGUMENT,
            "observations is 4 bytes, expected 16 for shape (1, 4) FP32",
        ),
        (
            CARTPOLE_BUNDLE,
            pb.ModelInferRequest(model_name="cartpole-ppo", raw_input_contents=[b""]),
            CODE.INVALID_ARGUMENT,
            "raw_input_contents is 1 tensors, expected 0, one per input",
        ),
        (
            CARTPOLE_BUNDLE,
            pb.ModelInferRequest(model_name="cartpole-ppo", inputs=[FP16]),
            CODE.INVALID_ARGUMENT,
            "observations is FP16 in contents, expected raw_input_contents for that datatype",
        ),
        (
            CARTPOLE_BUNDLE,
            request(1, 4, floats=[0] * 4, model_name="other"),
            CODE.NOT_FOUND,
            "no model 'other' is served here, only 'cartpole-ppo'",
        ),
        (
            CARTPOLE_BUNDLE,
            request(1, 4, floats=[0] * 4, model_version="4"),
            CODE.NOT_FOUND,
            "version 4 of 'cartpole-ppo' is not served here; request version 3, or omit the version",
        ),
        (
            CARTPOLE_BUNDLE,
            request(99, 4, raw=bytes(99 * 16)),
            CODE.RESOURCE_EXHAUSTED,
            "the body is larger than 1000 bytes; send fewer observations per request",
        ),
        (
            CARTPOLE_BUNDLE,
            pb.ModelInferRequest(model_name="cartpole-ppo", outputs=[CLASSES]),
            CODE.INVALID_ARGUMENT,
            "outputs[0].parameters.classification: an unsupported extension, expected only that of binary tensors",
        ),
        (
            STEERING_BUNDLE,
            request(1, 1, floats=[float("nan")]),
            CODE.INVALID_ARGUMENT,
            "observations[0][0] is NaN, expected a finite float32",
        ),
        (
            STEERING_BUNDLE,
            request(1, 1, floats=[7]),
            CODE.INTERNAL,
            "the policy computed numbers that are not finite, in its output 'action'",
        ),
    ],
)
def test_an_error_has_its_status_and_message(
    serve_grpc: Callable[[PolicyApp], Any], bundle: Bundle, asked: Any, code: object, message: str
) -> None:
    app = PolicyApp(served(bundle), Arguments(max_body_bytes=1000))
    with pytest.raises(grpc.RpcError) as refused:
        serve_grpc(app).ModelInfer(asked)
    assert (refused.value.code(), refused.value.details()) == (code, message)
    assert app.counts.errors == 1


def test_other_models_are_not_ready(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    stub = serve_grpc(PolicyApp(served()))
    for call, asked in (
        (stub.ModelReady, pb.ModelReadyRequest(name="other")),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name="cartpole-ppo", version="2")),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call(asked)
        assert refused.value.code() == CODE.NOT_FOUND


def test_requests_beyond_the_limit_are_rejected(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    app = PolicyApp(served(), Arguments(max_ongoing_requests=1))
    app._ongoing_requests = 1  # before the policy is measured as quick
    with pytest.raises(grpc.RpcError) as refused:
        serve_grpc(app).ModelInfer(request(1, 4, floats=[0] * 4))
    assert refused.value.code() == CODE.UNAVAILABLE


def test_requests_are_counted_like_those_of_the_native_route(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    app = PolicyApp(served())
    serve_grpc(app).ModelInfer(request(1, 4, floats=[0] * 4))
    assert app.counts.answered == 1
    assert app.metrics.request_ms.total > 0


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),)])
def test_with_a_token_only_health_is_open(
    serve_grpc: Callable[[PolicyApp], Any], metadata: tuple[tuple[str, str], ...]
) -> None:
    stub = serve_grpc(PolicyApp(served(), token=BearerToken("s3cret-0123")))
    assert stub.ServerLive(pb.ServerLiveRequest(), metadata=metadata).live
    assert stub.ServerReady(pb.ServerReadyRequest(), metadata=metadata).ready
    for ask, asked in (
        (stub.ServerMetadata, pb.ServerMetadataRequest()),
        (stub.ModelReady, pb.ModelReadyRequest(name="cartpole-ppo")),
        (stub.ModelMetadata, pb.ModelMetadataRequest(name="cartpole-ppo")),
        (stub.ModelInfer, request(1, 4, floats=[0, 0, 1, 0])),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            ask(asked, metadata=metadata)
        assert refused.value.code() == CODE.UNAUTHENTICATED
        assert ask(asked, metadata=(("authorization", "Bearer s3cret-0123"),))


def test_metadata_names_the_episode_as_headers_do(serve_grpc: Callable[[PolicyApp], Any], tmp_path: Path) -> None:
    journal = Journal(Place(tmp_path, "replica", {}, 1 << 26))
    journal.start()
    stub = serve_grpc(PolicyApp(served(), journal=journal))
    named = (("x-episode-id", "robot-7"), ("x-episode-step", "4"), ("x-episode-reward", "0.5"))
    answer = stub.ModelInfer(request(1, 4, floats=[0, 0, 1, 0], outputs=outputs("action")), metadata=named)
    journal.stop()
    (decision,) = decisions(tmp_path)
    assert decision.protocol == "inference_grpc"
    assert (decision.episodes.ids, decision.episodes.steps) == ([EpisodeHasher()("robot-7")], [4])
    assert decision.episodes.rewards == [0.5]
    assert decision.outputs["action"].tolist() == list(answer.outputs[0].contents.int64_contents)
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request(1, 4, floats=[0, 0, 1, 0]), metadata=(("x-episode-step", "4"),))
    assert refused.value.code() == CODE.INVALID_ARGUMENT
    assert "X-Episode-Step" in refused.value.details()


def test_a_pinned_version_answers_and_an_unknown_one_is_reported(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    app = PolicyApp(served())
    app.served = served(CONTRARY_BUNDLE, version=4)
    stub = serve_grpc(app)

    def infer(*metadata: tuple[str, str | bytes], **more: str) -> tuple[str, int, bool]:
        found = stub.ModelInfer(request(1, 4, floats=[0, 0, 1, 0], **more), metadata=metadata)
        action = next(each for each in found.outputs if each.name == "action").contents.int64_contents[0]
        return found.model_version, action, found.parameters["repinned"].bool_param

    assert infer() == ("4", 0, False)
    assert infer(("x-pin-version", "3")) == infer(("x-pin-version", "3"), model_version="3") == ("3", 1, False)
    assert infer(("x-pin-version", "2")) == ("4", 0, True)
    described = stub.ModelMetadata(pb.ModelMetadataRequest(name="cartpole-ppo"), metadata=[("x-pin-version", "3")])
    assert described.versions == ["3"]
    with pytest.raises(grpc.RpcError) as refused:
        infer(("x-pin-version", "three"))
    assert refused.value.code() == CODE.INVALID_ARGUMENT
    assert refused.value.details().startswith('X-Pin-Version is "three"')


def test_each_episode_is_answered_by_the_version_of_its_arm(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    state = experiment()
    app = PolicyApp(champion(state))
    app.challenge = challenge(state)
    stub = serve_grpc(app)

    def answer(episode: str, *more: tuple[str, str], **options: Any) -> tuple[str, bool]:
        metadata = (("x-episode-id", episode), *more)
        response = stub.ModelInfer(request(1, 4, floats=[0, 0, 1, 0], **options), metadata=metadata)
        return response.model_version, response.parameters["repinned"].bool_param

    for name in (*CHAMPIONS[:5], *CHALLENGERS[:5]):
        assert answer(name) == ("4" if name in CHALLENGERS else "3", False)
    assert answer(CHALLENGERS[0], ("x-pin-version", "3")) == ("3", False)
    assert answer(CHAMPIONS[0], ("x-pin-version", "4")) == ("4", False)
    assert answer(CHALLENGERS[0], model_version="3") == ("3", False)
    assert asking.ask(app, "GET", "/model").json()["experiment"]["answered"] == {"champion": 5, "challenger": 5}


def test_a_call_that_the_challenger_fails_is_answered_by_the_champion(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    def fail(_: Any) -> Any:
        raise PolicyFailed("it fails")

    state = experiment()
    app, failing = PolicyApp(champion(state)), challenge(state)
    app.challenge = failing
    failing.served.batcher._act = fail
    stub = serve_grpc(app)
    for more, repinned in (((), False), ((("x-pin-version", "4"),), True)):
        metadata = (("x-episode-id", CHALLENGERS[0]), *more)
        response = stub.ModelInfer(request(1, 4, floats=[0, 0, 1, 0]), metadata=metadata)
        assert (response.model_version, response.parameters["repinned"].bool_param) == ("3", repinned)
    assert asking.ask(app, "GET", "/model").json()["experiment"]["failed"] == 1
    assert app.challenge is None


def test_the_version_before_answers_what_this_one_fails_to_answer(serve_grpc: Callable[[PolicyApp], Any]) -> None:
    app = PolicyApp(served(CARTPOLE_BUNDLE))
    app.served = served(FAILING["output_not_finite"], version=4)
    stub = serve_grpc(app)
    assert stub.ModelInfer(request(1, 4, floats=[0] * 4)).model_version == "4"
    assert stub.ModelInfer(request(1, 4, floats=FATAL_OBSERVATION)).model_version == "3"
    assert stub.ModelInfer(request(1, 4, floats=[0] * 4)).model_version == "3"
