import json

import pytest

from serving.app import Arguments
from serving.cli import main
from serving.limits import Limits, json_depth
from serving.routes import PolicyApp
from tests.serving.policies import ask, served

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


@pytest.mark.parametrize("body", [b"[" * 200, b'{"observation": ' + b"[" * 64 + b"]" * 64 + b"}"])
def test_deep_json_is_refused_before_it_is_parsed(body: bytes) -> None:
    answer = ask(PolicyApp(served()), body=body)
    assert (answer.status, answer.json()["error"]) == (
        400,
        {
            "code": "json_too_deep",
            "message": "the body nests lists and objects more than 64 deep; no observation needs that",
        },
    )


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
