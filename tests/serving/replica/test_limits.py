import json
import time

import pytest

from serving.app import Arguments
from serving.cli import main
from serving.http.app import PolicyApp
from serving.protocols.protocol import Act, Answer, Refusal, Request
from serving.replica.limits import Limits, json_depth
from serving.replica.served_policy import ServedPolicy
from tests.serving.policies import ROBOT_BUNDLE, ROBOT_OBSERVATION, ask, served

ZERO = [0.0] * 4


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        (b"", 0),
        (b"1", 0),
        (b"[[], []]", 2),
        (b'{"a": [{}]}', 3),
        (b'{"[[[": "]]]"}', 1),
        (rb'["\"[[[[", [[]]]', 3),
        (b"[[[[", 4),
        (b"]]]][[", 0),
        (b'"[[', 0),
        (b"\xff[\x00[", 2),
    ],
)
def test_the_depth_is_that_of_lists_and_objects_outside_of_text(body: bytes, depth: int) -> None:
    assert json_depth(body) == depth


def test_as_many_observations_as_allowed_are_answered_and_no_more() -> None:
    app = PolicyApp(served(), limits=Limits(max_observations=3))
    assert ask(app, body=json.dumps({"observations": [ZERO] * 3}).encode()).json() == {"actions": [0, 0, 0]}
    answer = ask(app, body=json.dumps({"observations": [ZERO] * 4}).encode())
    assert (answer.status, answer.json()["error"]) == (
        413,
        {
            "code": "observations_too_many",
            "message": "the request holds 4 observations, expected at most 3; send several requests",
        },
    )


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 200,
        b"[" * 200_000,
        b'{"observation": ' + b"[" * 64 + b"]" * 64 + b"}",
        b'{"observations": ' + b"[" * 990 + b"]" * 990 + b"}",
        b'{"observation": [0, 0, 0, 0], "x": ' + b"[" * 64 + b"]" * 64 + b"}",
    ],
)
def test_deep_json_is_refused(body: bytes) -> None:
    answer = ask(PolicyApp(served()), body=body)
    assert (answer.status, answer.json()["error"]) == (
        400,
        {
            "code": "json_too_deep",
            "message": "the body nests lists and objects more than 64 deep; no observation needs that",
        },
    )


def test_what_the_observation_space_asks_for_is_never_too_deep() -> None:
    app = PolicyApp(served(ROBOT_BUNDLE), limits=Limits(max_json_depth=2))
    assert ask(app, body=json.dumps({"observation": ROBOT_OBSERVATION}).encode()).status == 200
    assert ask(app, body=b'{"observation": [[1]]}').json()["error"]["code"] == "json_too_deep"


def test_the_deepest_limit_is_far_from_where_readers_give_up() -> None:
    app = PolicyApp(served(), limits=Limits(max_json_depth=256))
    answer = ask(app, body=b'{"observation": ' + b"[" * 255 + b"]" * 255 + b"}")
    assert answer.json()["error"]["code"] == "observation_shape"


class Plain:
    """A protocol whose requests are a list of observations."""

    def methods(self, path: str) -> tuple[str, ...]:
        return ("POST",) if path == "/plain" else ()

    async def answer(self, request: Request, served: ServedPolicy, act: Act) -> Answer:
        decoded = served.codec.decode(b'{"observations": %b}' % request.body)
        return Answer(b"%d" % len(await act(decoded.observations)))

    def refuse(self, refusal: Refusal) -> bytes:
        return refusal.code.encode()


DEEP = b"[" * 300 + b"]" * 300
BINARY = {"inference-header-content-length": "2"}


@pytest.mark.parametrize(
    ("body", "headers", "answer"),
    [
        (json.dumps([ZERO] * 3).encode(), {}, (200, b"3")),
        (json.dumps([ZERO] * 4).encode(), {}, (413, b"observations_too_many")),
        (DEEP, {}, (400, b"json_too_deep")),
        (DEEP, BINARY, (422, b"observation_shape")),
    ],
)
def test_the_limits_hold_for_every_protocol(body: bytes, headers: dict[str, str], answer: tuple[int, bytes]) -> None:
    app = PolicyApp(served(), limits=Limits(max_observations=3))
    app._protocols = (Plain(),)
    found = ask(app, "POST", "/plain", body, headers=headers)
    assert (found.status, found.body) == answer


@pytest.mark.parametrize("part", [b'"\\', b'"', b"[{", b"]", b'["\\"'])
def test_a_hostile_body_is_looked_at_in_no_time(part: bytes) -> None:
    start = time.perf_counter()
    json_depth(part * (1 << 17))
    assert time.perf_counter() - start < 10


def test_many_lists_beside_each_other_are_not_deep() -> None:
    body = json.dumps({"observations": [ZERO] * 500}).encode()
    assert len(ask(PolicyApp(served()), body=body).json()["actions"]) == 500


def test_the_command_line_has_the_defaults_of_the_application() -> None:
    fields = Arguments.model_fields
    options = {option.name: option.default for option in main.commands["run"].params if option.name in fields}
    assert {"max_observations", "max_json_depth", "max_body_bytes", "auth_token_file"} <= options.keys()
    assert all(
        default in (fields[name].default, None) or repr(default) == "Sentinel.UNSET"
        for name, default in options.items()
    )
