import asyncio
import json
import logging
from typing import Any

import pytest

from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.policy.guards.watchdog import unguarded
from tests.serving.asking import answers_together, ask, served
from tests.serving.policies import (
    CARTPOLE_BUNDLE,
    COUNTING_BUNDLE,
    EXPLORING_BUNDLE,
    ROBOT_BUNDLE,
    ROBOT_OBSERVATION,
    STEERING_BUNDLE,
)

ONE = b'{"observation": [0.1, 0.2, 0.3, 0.4]}'


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["", "/"])
def test_an_observation_gets_its_action_on_either_method_and_path(app: PolicyApp, method: str, path: str) -> None:
    answer = ask(app, method, path, ONE)
    assert (answer.status, answer.body) == (200, b'{"action":1}')
    assert answer.headers == {
        "content-type": "application/json",
        "content-length": "12",
        "x-model-name": "cartpole-ppo",
        "x-model-version": "3",
    }


def test_observations_get_their_actions_in_order(app: PolicyApp) -> None:
    answer = ask(app, body=b'{"observations": [[0, 0, 1, 0], [0, 0, -1, 0]]}')
    assert answer.json() == {"actions": [1, 0]}


def test_a_body_can_arrive_in_pieces(app: PolicyApp) -> None:
    assert ask(app, chunks=[ONE[:10], ONE[10:20], ONE[20:], b""]).json() == {"action": 1}


def test_model_describes_the_served_version(app: PolicyApp) -> None:
    answer = ask(app, "GET", "/model")
    assert answer.status == 200
    assert answer.json()["version"] == 3


def test_health_is_ok_once_there_is_a_policy(app: PolicyApp) -> None:
    answer = ask(app, "GET", "/health")
    assert (answer.status, answer.json()) == (200, {"status": "ok", "name": "cartpole-ppo", "version": 3})


BAD: list[tuple[str, str, bytes, int, str, str]] = [
    (
        "POST",
        "/",
        b"hello",
        400,
        "body_not_json",
        (
            "the body is not JSON: unexpected character, expected a JSON value: line 1 column 1 (char 0); "
            'send {"observation": [...]}'
        ),
    ),
    ("POST", "/", b"[]", 422, "body_not_object", 'the body is a list, expected an object like {"observation": [...]}'),
    (
        "POST",
        "/",
        b"{}",
        422,
        "observation_missing",
        'the request has no key, expected "observation" (one) or "observations" (a list of them)',
    ),
    (
        "POST",
        "/",
        b'{"observation": [], "observations": []}',
        422,
        "observation_ambiguous",
        'the request has both "observation" and "observations", expected one of them',
    ),
    (
        "POST",
        "/",
        b'{"observation": [1, 2, 3]}',
        422,
        "observation_shape",
        "observation has shape (3,), expected (4,) float32",
    ),
    (
        "POST",
        "/",
        b'{"observation": [1, 2, 3, 4, 5]}',
        422,
        "observation_shape",
        "observation has shape (5,), expected (4,) float32",
    ),
    (
        "POST",
        "/",
        b'{"observation": [[1, 2, 3, 4]]}',
        422,
        "observation_shape",
        "observation has shape (1, 4), expected (4,) float32",
    ),
    (
        "POST",
        "/",
        b'{"observation": "abc"}',
        422,
        "observation_type",
        'observation is the string "abc", expected (4,) float32',
    ),
    (
        "POST",
        "/",
        b'{"observation": [1, 2, 3, NaN]}',
        422,
        "observation_not_finite",
        "observation[3] is NaN, expected a finite float32",
    ),
    (
        "POST",
        "/",
        b'{"observation": ["\\ud800", 2, 3, 4]}',
        422,
        "observation_type",
        'observation[0] is the string "?", expected a number',
    ),
    (
        "POST",
        "/",
        b" " * 1001,
        413,
        "body_too_large",
        "the body is larger than 1000 bytes; send fewer observations per request",
    ),
    ("GET", "/nowhere", b"", 404, "path_unknown", "no such path: /nowhere; there are /, /model, /health"),
    ("PUT", "/", ONE, 405, "method_not_allowed", "PUT is not allowed on /, use GET or POST"),
    ("POST", "/model", ONE, 405, "method_not_allowed", "POST is not allowed on /model, use GET or HEAD"),
]


ROBOT = json.dumps(ROBOT_OBSERVATION)
BAD_KINDS: list[tuple[Bundle, str, str, str]] = [
    (
        ROBOT_BUNDLE,
        '{"observation": ' + ROBOT.replace("[0.5, -0.25, 1]", "[1, 2]") + "}",
        "observation_shape",
        "observation.arm.position: shape (2,), expected (3,) float32",
    ),
    (
        ROBOT_BUNDLE,
        '{"observations": [' + ROBOT + ", " + ROBOT.replace('"grip": -1', '"grip": 5') + "]}",
        "observation_range",
        "observations[1].arm.grip: 5, expected an integer from -1 to 1",
    ),
    (
        ROBOT_BUNDLE,
        '{"observation": {}}',
        "observation_key_missing",
        'observation has no key "arm", expected arm, goal, switches',
    ),
    (EXPLORING_BUNDLE, '{"observation": [0, 0, 0, 0], "seed": 1.5}', "option_invalid", '"seed" is 1.5, expected an'),
    (COUNTING_BUNDLE, '{"observation": [0], "state": "AAAA"}', "state_invalid", "state is cut off; send the state of"),
    (
        CARTPOLE_BUNDLE,
        '{"observation": [0, 0, 0, 0], "explore": true}',
        "explore_unsupported",
        "this version computes greedy actions only",
    ),
]


@pytest.mark.parametrize(("bundle", "body", "code", "message"), BAD_KINDS, ids=[case[2] for case in BAD_KINDS])
def test_each_kind_of_bad_request_has_its_own_error(bundle: Bundle, body: str, code: str, message: str) -> None:
    answer = ask(PolicyApp(served(bundle)), body=body.encode())
    assert (answer.status, answer.json()["error"]["code"]) == (422, code)
    assert answer.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "message"), BAD, ids=[case[5][:50] for case in BAD]
)
def test_a_bad_request_gets_its_exact_response(
    app: PolicyApp, method: str, path: str, body: bytes, status: int, code: str, message: str
) -> None:
    answer = ask(app, method, path, body)
    assert (answer.status, answer.json()) == (status, {"error": {"code": code, "message": message}})
    assert answer.headers["x-model-version"] == "3"
    assert answer.headers["content-length"] == str(len(answer.body))


def test_an_error_message_repeats_only_part_of_a_long_request() -> None:
    answer = ask(PolicyApp(served()), body=b'{"observation": [0, 0, 0, 0], "%b": 1}' % (b"x" * 100_000))
    assert answer.status == 422
    assert len(answer.json()["error"]["message"]) == 2000


def test_the_response_to_a_wrong_method_lists_the_right_ones_in_a_header(app: PolicyApp) -> None:
    assert ask(app, "DELETE").headers["allow"] == "GET, POST"


def test_an_oversized_body_in_pieces_is_read_to_its_end_and_rejected(app: PolicyApp) -> None:
    answer = ask(app, chunks=[b" " * 600] * 5)
    assert answer.status == 413


def test_an_endless_body_is_cut_off(app: PolicyApp) -> None:
    asked = 0
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "root_path": "", "headers": []}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 413
    assert asked < 20


def test_the_reason_of_a_failing_policy_is_logged_and_not_sent(
    app: PolicyApp, caplog: pytest.LogCaptureFixture
) -> None:
    app.served.policy._run = unguarded(lambda *_: {}["a key"])
    with caplog.at_level(logging.ERROR):
        answer = ask(app, body=ONE)
    assert answer.status == 500
    assert answer.json()["error"] == {
        "code": "policy_failed",
        "message": "the policy failed to compute an action; the server's log has the reason",
    }
    assert "KeyError: 'a key'" in caplog.text


def test_an_action_that_is_not_finite_is_an_error() -> None:
    answer = ask(PolicyApp(served(STEERING_BUNDLE)), body=b'{"observation": [7]}')
    assert (answer.status, answer.json()["error"]["code"]) == (500, "output_not_finite")


def test_any_other_exception_is_logged_and_not_sent(app: PolicyApp, caplog: pytest.LogCaptureFixture) -> None:
    app.served.batcher._act = None  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        answer = ask(app, body=ONE)
    assert answer.json() == {"error": {"code": "internal_error", "message": "the server failed; its log says why"}}
    assert "TypeError" in caplog.text


def test_a_client_that_disconnects_gets_no_response(app: PolicyApp) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "root_path": "", "headers": []}
    asyncio.run(app(scope, receive, send))
    assert sent == []


def test_a_bad_request_among_good_ones_gets_its_exact_response(app: PolicyApp) -> None:
    bad = [case for case in BAD if case[0] == "POST" and case[1] == "/"] * 3
    bodies = [body for case in bad for body in (ONE, case[2])]
    found = answers_together(app, *bodies)
    assert {(status, body) for status, _, body in found[::2]} == {(200, b'{"action":1}')}
    for (_, _, _, status, code, message), (got, _, body) in zip(bad, found[1::2], strict=True):
        assert (got, json.loads(body)["error"]) == (status, {"code": code, "message": message})
