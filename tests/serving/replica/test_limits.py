import json

import pytest

from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.protocols.native.json_codec import JsonCodec
from serving.protocols.protocol import ErrorResponse, Protocol, Request, Response
from serving.replica.served_policy import ServedPolicy
from tests.serving.asking import ask, served
from tests.serving.policies import COUNTING_BUNDLE, ROBOT_BUNDLE

ZERO = [0.0] * 4


def test_a_request_holds_at_most_the_allowed_number_of_observations() -> None:
    app = PolicyApp(served(), Arguments(max_observations=3))
    assert ask(app, body=json.dumps({"observations": [ZERO] * 3}).encode()).json() == {"actions": [0, 0, 0]}
    answer = ask(app, body=json.dumps({"observations": [ZERO] * 4}).encode())
    assert (answer.status, answer.json()["error"]) == (
        413,
        {
            "code": "observations_too_many",
            "message": "the request holds 4 observations, expected at most 3; send several requests",
        },
    )


class ListProtocol(Protocol):
    """A protocol whose requests are lists of observations."""

    def methods(self, path: str) -> tuple[str, ...]:
        return ("POST",) if path == "/list" else ()

    async def answer(self, request: Request, served: ServedPolicy) -> Response:
        observations, *_ = served.prepared(JsonCodec).decode(b'{"observations": %b}' % request.body)
        return Response(b"%d" % len(await served.act(observations)))

    def error_body(self, error: ErrorResponse) -> bytes:
        return error.code.encode()


@pytest.mark.parametrize(("count", "answer"), [(3, (200, b"3")), (4, (413, b"observations_too_many"))])
def test_the_limit_applies_to_every_protocol(count: int, answer: tuple[int, bytes]) -> None:
    app = PolicyApp(served(), Arguments(max_observations=3))
    app._routes.protocols = (ListProtocol(),)
    found = ask(app, "POST", "/list", json.dumps([ZERO] * count).encode())
    assert (found.status, found.body) == answer


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize("levels", [65, 1_000, 1_100, 100_000])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", b"%b"),
        ("/", b'{"observation": %b}'),
        ("/", b'{"observations": %b}'),
        ("/", b'{"observation": [0, 0, 0, 0], "x": %b}'),
        ("/", b'{"observation": [0, 0, 0, 0], "state": %b}'),
        ("/invocations", b'{"inputs": %b}'),
        ("/invocations", b'{"dataframe_split": {"data": %b}}'),
        ("/v2/models/cartpole-ppo/infer", b'{"inputs": %b}'),
        (
            "/v2/models/cartpole-ppo/infer",
            b'{"inputs": [{"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": %b}]}',
        ),
    ],
)
@pytest.mark.parametrize("bundle", [COUNTING_BUNDLE, ROBOT_BUNDLE], ids=["one array", "nested"])
def test_deeply_nested_json_is_the_clients_error(bundle: Bundle, path: str, body: bytes, levels: int) -> None:
    headers = {"content-type": "application/json"}
    answer = ask(PolicyApp(served(bundle)), "POST", path, body % nested(levels), headers=headers)
    assert 400 <= answer.status < 500
    assert len(answer.body) < 5000


def test_json_beyond_the_parsers_limit_is_reported_as_too_deep() -> None:
    answer = ask(PolicyApp(served()), body=nested(100_000))
    assert (answer.status, answer.json()["error"]) == (
        400,
        {
            "code": "body_not_json",
            "message": 'the body is not JSON: it is nested too deeply; send {"observation": [...]}',
        },
    )


def test_a_large_batch_is_not_deep() -> None:
    body = json.dumps({"observations": [ZERO] * 500}).encode()
    assert len(ask(PolicyApp(served()), body=body).json()["actions"]) == 500
