import asyncio
import re

import pytest

from serving.http.policy_app import PolicyApp
from serving.telemetry.request_ids import accepted, new_request_id, request_id_of, with_request_ids
from tests.serving.asking import Answer, ask

ONE = b'{"observation": [0, 0, 1, 0]}'


@pytest.mark.parametrize("given", ["7", "a" * 128, "0191d9a4-8f1e-7c5b-9c3e-2f6f4f1b8c11", "a.b_c:d+e/f="])
def test_identifiers_of_clients_are_taken(given: str) -> None:
    assert accepted(given) == accepted(given.encode()) == given


@pytest.mark.parametrize(
    "given", ["", None, "a" * 129, "a b", 'a"b', "a\nb", "a\n", "ü", "\udc80", "{}", "a,b", "\x1b[2J"]
)
def test_identifiers_that_a_log_would_have_to_escape_are_not_taken(given: str | None) -> None:
    assert accepted(given) is None


def test_new_identifiers_differ_and_are_accepted() -> None:
    first, second = new_request_id(), new_request_id()
    assert first != second
    assert accepted(first) == first.decode()


def test_headers_without_an_identifier_have_none() -> None:
    assert request_id_of([(b"host", b"h")]) is None


def test_an_error_carries_the_identifier_in_its_body_and_in_the_log(
    app: PolicyApp, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.served, "act", None)  # calling it is an unexpected failure
    answer = ask(app, body=ONE, headers={"X-Request-ID": "7"})
    assert answer.json()["error"]["request_id"] == "7"
    assert [record.request_id for record in caplog.records] == ["7"]  # type: ignore[attr-defined]


def test_an_error_in_mlflows_form_carries_the_identifier_too(app: PolicyApp) -> None:
    answer = ask(
        app, path="/invocations", body=b"{}", headers={"X-Request-ID": "7", "Content-Type": "application/json"}
    )
    assert (answer.status, answer.json()["request_id"]) == (400, "7")


def test_an_error_of_the_open_inference_protocol_has_the_members_of_its_specification_only(app: PolicyApp) -> None:
    answer = ask(app, path="/v2/models/cartpole-ppo/infer", body=b"{}", headers={"X-Request-ID": "7"})
    assert answer.json().keys() == {"error"}


def identified(app: PolicyApp, body: bytes = ONE, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(with_request_ids(app), body=body, headers=named)


def test_on_the_direct_port_the_response_carries_the_identifier_of_the_request(app: PolicyApp) -> None:
    assert identified(app, X_Request_ID="7").headers["x-request-id"] == "7"


def test_on_the_direct_port_a_request_without_a_valid_identifier_gets_one(app: PolicyApp) -> None:
    error = identified(app, b"hello", X_Request_ID="a b")
    found = error.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", found)
    assert error.json()["error"]["request_id"] == found
    assert identified(app).headers["x-request-id"] != found


def test_the_lifespan_of_an_application_passes() -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    passed = []

    async def application(scope, receive, send):  # noqa: ARG001
        passed.extend([await receive(), await receive()])

    async def receive() -> dict[str, str]:
        return messages.pop(0)

    asyncio.run(with_request_ids(application)({"type": "lifespan"}, receive, None))  # type: ignore[arg-type]
    assert [message["type"] for message in passed] == ["lifespan.startup", "lifespan.shutdown"]
