"""The examples in /openapi.json work, and schemathesis finds no response that is not described."""

from typing import Any

import jsonschema
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from serving.arguments import Arguments
from serving.errors import http_errors
from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.replica.auth import OPEN_PATHS, BearerToken
from tests.browser import chromium
from tests.serving.asking import ask, served
from tests.serving.policies import CARTPOLE_BUNDLE, COUNTING_BUNDLE, EXPLORING_BUNDLE, ROBOT_BUNDLE, STEERING_BUNDLE

BUNDLES = {
    "cartpole": CARTPOLE_BUNDLE,
    "steering": STEERING_BUNDLE,
    "exploring": EXPLORING_BUNDLE,
    "counting": COUNTING_BUNDLE,
    "robot": ROBOT_BUNDLE,
}
NEGATIVE = schemathesis.GenerationMode.NEGATIVE
SEED, EXAMPLES = 7, 25
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


JSON = {"content-type": "application/json"}


def filled_in(path: str, operation: Any) -> str:
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
    return path


def document_of(app: PolicyApp) -> Any:
    return ask(app, "GET", "/openapi.json").json()


@pytest.mark.parametrize("bundle", BUNDLES.values(), ids=BUNDLES)
def test_every_example_works_unchanged(bundle: Bundle) -> None:
    app = PolicyApp(served(bundle))
    tried = 0
    for path, item in document_of(app)["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                jsonschema.validate(example["value"], content["schema"])
                url = filled_in(path, operation)
                answer = ask(app, method.upper(), url, orjson.dumps(example["value"]), headers=JSON)
                assert answer.status == 200, answer.body
                schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
                jsonschema.validate(answer.json(), schema)
                tried += 1
    assert tried >= 10


def test_every_described_path_answers(app: PolicyApp) -> None:
    paths = document_of(app)["paths"]
    assert {"/", "/model", "/health", "/openapi.json", "/docs", "/play", "/invocations", "/ping", "/version"} < {*paths}
    assert {"/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/cartpole-ppo/versions/{version}/infer"} < {*paths}
    for path, item in paths.items():
        if "get" in item and "requestBody" not in item["get"]:
            assert ask(app, "GET", filled_in(path, item["get"])).status == 200, path


def test_the_csv_example_works_unchanged(app: PolicyApp) -> None:
    content = document_of(app)["paths"]["/invocations"]["post"]["requestBody"]["content"]["text/csv"]
    answer = ask(app, "POST", "/invocations", content["example"].encode(), headers={"content-type": "text/csv"})
    assert answer.status == 200, answer.body


def test_play_is_not_described_where_it_is_turned_off() -> None:
    assert "/play" not in document_of(PolicyApp(served(), Arguments(play_sessions=0)))["paths"]


def test_the_native_errors_are_those_that_no_other_protocol_defines(app: PolicyApp) -> None:
    described = {
        (status, code)
        for status, response in document_of(app)["components"]["responses"].items()
        for code in response["content"]["application/json"]["schema"]["properties"]["error"]["properties"]["code"][
            "enum"
        ]
    }
    others = {
        "media_type_unsupported",
        "invocation_malformed",
        "invocation_invalid",
        "inference_invalid",
        "model_not_served",
        "version_not_served",
        "play_busy",
    }
    errors = {(error.status.name, error.code) for error in http_errors()}
    assert others < {code for _, code in errors}
    native = {(status, code) for status, code in errors if code not in others}
    assert described == native | {("INTERNAL_SERVER_ERROR", "internal_error")}


def test_the_server_url_is_the_route_prefix(app: PolicyApp) -> None:
    assert document_of(app)["servers"] == [{"url": "/prefix"}]


def test_the_token_is_described_for_every_path_that_needs_it() -> None:
    app = PolicyApp(served(), token=BearerToken("abc"))
    document = ask(app, "GET", "/openapi.json", headers={"authorization": "Bearer abc"}).json()
    assert document["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    assert "401" in document["paths"]["/"]["post"]["responses"]
    for path, item in document["paths"].items():
        for operation in item.values():
            assert (operation.get("security") == []) == (path in OPEN_PATHS)
            assert ("401" in operation["responses"]) == (path not in OPEN_PATHS)


@pytest.mark.parametrize("path", ["/", "/model", "/invocations", "/v2/models/cartpole-ppo/infer", "/openapi.json"])
def test_a_request_without_token_gets_the_described_response(path: str) -> None:
    app = PolicyApp(served(), token=BearerToken("abc"))
    document = ask(app, "GET", "/openapi.json", headers={"authorization": "Bearer abc"}).json()
    method, operation = next(iter(document["paths"][path].items()))
    response = operation["responses"]["401"]
    response = document["components"]["responses"]["UNAUTHORIZED"] if "$ref" in response else response
    answer = ask(app, method.upper(), path)
    assert answer.status == 401
    jsonschema.validate(answer.json(), response["content"]["application/json"]["schema"])


# No bundle with a Tuple: schemathesis sometimes rejects the prefixItems of a schema that it has mutated itself.
@pytest.mark.parametrize("bundle", [EXPLORING_BUNDLE, COUNTING_BUNDLE], ids=["exploring", "counting"])
def test_schemathesis_finds_no_failure_and_no_undocumented_response(bundle: Bundle, serve_http: Any) -> None:
    app = PolicyApp(served(bundle))
    url = serve_http(app)
    schema = schemathesis.openapi.from_dict(document_of(app) | {"servers": [{"url": "/"}]})
    for found in schema.get_all_operations():
        operation = found.ok()
        valid = operation.as_strategy()
        strategy = valid | operation.as_strategy(generation_mode=NEGATIVE) if operation.body else valid

        @seed(SEED)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=strategy)
        def answers_as_described(case: Any) -> None:
            case.call_and_validate(base_url=url, checks=CHECKS)

        answers_as_described()


def test_the_docs_page_shows_the_api_and_sends_requests(serve_http: Any) -> None:
    url = serve_http(PolicyApp(served(), token=BearerToken("abc")))
    with chromium() as browser:
        page = browser.new_page()
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"{url}/docs")
        for token, said in (("abd", "refused this token"), ("abc", "cartpole-ppo")):
            page.get_by_label("bearer token").fill(token)
            page.get_by_role("button", name="Show the API").click()
            page.get_by_text(said).first.wait_for(timeout=10_000)
        page.get_by_role("button", name="Send").first.click()
        page.get_by_text('{"action":0}').wait_for(timeout=10_000)
    assert all("401" in error for error in errors)
    assert all(each.startswith((url, "data:")) for each in asked)
