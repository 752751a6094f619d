"""MLflow's scoring protocol, without MLflow; `test_beside_mlflow.py` compares both servers."""

import importlib.metadata
import json
import tracemalloc
from typing import Any

import pytest

from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from tests.serving.asking import ask, served
from tests.serving.invocations import BODY, BUNDLES, CONTENT_TYPES, CSV_BODY, FIRST, JSON, ROBOT, STRICTER, Sent, invoke
from tests.serving.policies import CONTRARY_BUNDLE, COUNTING_BUNDLE, EXPLORING_BUNDLE, ROBOT_BUNDLE, STEERING_BUNDLE


def predictions(bundle: Any, request: Any) -> Any:
    answer = invoke(PolicyApp(served(bundle)), json.dumps(request).encode())
    assert answer.status == 200, answer.body
    return answer.json()["predictions"]


def test_the_predictions_are_all_outputs_of_the_graph() -> None:
    found = predictions(EXPLORING_BUNDLE, {"inputs": [[0, 0, 1, 0], [0, 0, -1, 0]]})
    assert found["action"] == [1, 0]
    assert found["action_dist_inputs"] == [[0, 5], [0, -5]]
    assert found["action_logp"] == pytest.approx([-0.0067, -0.0067], abs=1e-4)
    assert found["values"] == [1, -1]


def test_the_action_equals_that_of_the_native_route(app: PolicyApp) -> None:
    native = ask(app, body=b'{"observation": [0.1, 0.2, 0.3, 0.4]}').json()["action"]
    assert invoke(app, BODY).json()["predictions"]["action"] == [native]


def test_a_response_has_the_model_version_and_content_type(app: PolicyApp) -> None:
    answer = invoke(app, BODY)
    assert (answer.headers["content-type"], answer.headers["x-model-version"]) == (JSON, "3")


@pytest.mark.parametrize("request_", [{"inputs": ROBOT}, {"instances": [FIRST, FIRST]}], ids=["inputs", "instances"])
def test_arrays_of_a_nested_space_have_the_names_of_the_graphs_inputs(request_: Any) -> None:
    found = predictions(ROBOT_BUNDLE, request_)
    assert (found["action.mode"][0], found["action.flags.0"][0]) == (5, [1, 0])


def test_a_recurrent_policy_starts_an_episode_with_each_row() -> None:
    found = predictions(COUNTING_BUNDLE, {"inputs": [[0.5], [-1]]})
    assert found["action"] == [1, 0]
    assert found["state_out.sum"] == [[0.5], [-1]]


def test_csv_is_accepted() -> None:
    answer = invoke(PolicyApp(served(EXPLORING_BUNDLE)), CSV_BODY, "text/csv")
    assert answer.json()["predictions"]["action"] == [1, 0]


def test_missing_columns_of_a_nested_space_are_named() -> None:
    app = PolicyApp(served(ROBOT_BUNDLE))
    answer = invoke(app, b"observations.arm.grip\n1\n", "text/csv")
    assert answer.json()["message"].endswith(
        "missing observations.arm.position, observations.goal.0, observations.goal.1, observations.switches"
    )


@pytest.mark.parametrize("sent", CONTENT_TYPES)
def test_content_types_are_accepted_and_rejected_as_listed(sent: Sent) -> None:
    assert invoke(PolicyApp(served(EXPLORING_BUNDLE)), sent.body, sent.content_type).status == sent.ours


def test_a_request_without_content_type_is_rejected_with_the_supported_ones(app: PolicyApp) -> None:
    answer = invoke(app, BODY, content_type=None)
    assert (answer.status, answer.json()) == (
        415,
        {
            "error_code": "BAD_REQUEST",
            "message": "the content type is missing, expected application/json or text/csv, in UTF-8",
        },
    )


@pytest.mark.parametrize(("name", "request_", "reason"), STRICTER, ids=[case[2][:40] for case in STRICTER])
def test_values_outside_the_space_are_rejected(name: str, request_: Any, reason: str) -> None:
    answer = invoke(PolicyApp(served(BUNDLES[name])), json.dumps(request_).encode())
    assert (answer.status, set(answer.json())) == (400, {"error_code", "message"})
    assert reason in answer.json()["message"]


BAD: list[tuple[bytes, str, str]] = [
    (
        b"{",
        "BAD_REQUEST",
        "cannot read the invocation: the body is not JSON: unexpected end of data: line 1 column 2 (char 1)",
    ),
    (
        b"[]",
        "BAD_REQUEST",
        (
            "cannot read the invocation: the body is a list, expected an object with one of inputs, instances, "
            "dataframe_split, dataframe_records"
        ),
    ),
    (
        b'{"inputs": [], "instances": []}',
        "BAD_REQUEST",
        (
            "cannot read the invocation: the request has inputs and instances, expected one of inputs, instances, "
            "dataframe_split, dataframe_records"
        ),
    ),
    (
        b'{"inputs": [["a", 0, 0, 0]]}',
        "BAD_REQUEST",
        'cannot read the invocation: observations[0][0] is the string "a", expected a number',
    ),
    (
        b'{"inputs": [[1, 2, 3]]}',
        "INVALID_PARAMETER_VALUE",
        "the invocation does not fit the model: observations[0] has shape (3,), expected (4,) float32",
    ),
    (
        b'{"inputs": [[' + b"[" * 100_000 + b"]]}",
        "BAD_REQUEST",
        "cannot read the invocation: the body is not JSON: it is nested too deeply",
    ),
]


@pytest.mark.parametrize(("body", "error_code", "message"), BAD, ids=[case[2][:60] for case in BAD])
def test_an_error_has_mlflows_form_and_an_exact_message(body: bytes, error_code: str, message: str) -> None:
    answer = invoke(PolicyApp(served()), body)
    assert (answer.status, answer.json()) == (400, {"error_code": error_code, "message": message})


def test_errors_of_the_application_have_mlflows_form_on_its_paths(app: PolicyApp) -> None:
    too_large, not_allowed = invoke(app, b" " * 1001), invoke(app, b"", method="GET")
    assert (too_large.status, too_large.json()["error_code"]) == (413, "BAD_REQUEST")
    assert (not_allowed.status, not_allowed.headers["allow"]) == (405, "POST")
    assert not_allowed.json()["message"] == "GET is not allowed on /invocations, use POST"


def test_a_policy_that_fails_is_an_internal_error() -> None:
    answer = invoke(PolicyApp(served(STEERING_BUNDLE)), b'{"inputs": [[7]]}')
    assert (answer.status, answer.json()["error_code"]) == (500, "INTERNAL_ERROR")


def test_an_overloaded_server_is_temporarily_unavailable() -> None:
    answer = invoke(PolicyApp(served(), Arguments.model_construct(max_ongoing_requests=0)), BODY)
    assert (answer.status, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ping_and_version_respond_as_mlflows_do(app: PolicyApp, method: str) -> None:
    ping, version = (invoke(app, b"", None, path, method) for path in ("/ping", "/version"))
    assert (ping.status, ping.body) == (200, b"\n")
    assert (version.status, version.body.decode()) == (200, importlib.metadata.version("mlflow"))


def test_a_promoted_version_answers_the_next_request(app: PolicyApp) -> None:
    before = invoke(app, BODY)
    app.served = served(CONTRARY_BUNDLE, version=4)
    after = invoke(app, BODY)
    assert [answer.json()["predictions"]["action"] for answer in (before, after)] == [[1], [0]]
    assert [answer.headers["x-model-version"] for answer in (before, after)] == ["3", "4"]


def test_requests_and_errors_are_counted(app: PolicyApp) -> None:
    invoke(app, BODY)
    invoke(app, b"{")
    assert (app.counts.answered, app.counts.errors) == (1, 1)
    assert app.metrics.requests_rejected == {"invocation_malformed": 1}


def test_long_numbers_and_many_strings_cost_memory_in_proportion_to_the_request() -> None:
    request = json.dumps({"inputs": [["1"] * 4] * 5000 + [["1" * 50_000, "1", "1", "1"]]}).encode()
    app = PolicyApp(served(), Arguments(max_observations=10_000))
    tracemalloc.start()
    try:
        answer = invoke(app, request)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status == 400
    assert peak < 50 * len(request)  # an array of strings of this length would take 4 GB
