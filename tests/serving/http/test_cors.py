"""CORS headers, as a browser receives them. A browser sends the header Origin with requests of other sites' pages."""

import pytest

from serving.http.cors import with_cors
from serving.http.policy_app import PolicyApp
from serving.replica.auth import BearerToken
from tests.serving.asking import Answer, ask, served

SITE, OTHER = "https://robots.example.com", "https://other.example.com"
ONE = b'{"observation": [0, 0, 1, 0]}'


def asked(
    path: str = "/", *, origin: str = SITE, origins: tuple[str, ...] = (SITE,), token: bool = False, method: str = "GET"
) -> Answer:
    """The answer to a request of a page of `origin` from a server that allows `origins`."""
    app = PolicyApp(served(), token=BearerToken("s3cret-0123") if token else None)
    body = ONE if method == "POST" else b""
    return ask(with_cors(app, origins), method, path, body, headers={"Origin": origin})


def preflight(path: str, *, origin: str = SITE, token: bool = False) -> Answer:
    app = PolicyApp(served(), token=BearerToken("s3cret-0123") if token else None)
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
        "Access-Control-Request-Private-Network": "true",
    }
    return ask(with_cors(app, (SITE,)), "OPTIONS", path, headers=headers)


def test_it_is_off_by_default() -> None:
    app = PolicyApp(served())
    assert with_cors(app, ()) is app


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/", 200),
        ("GET", "/model", 200),
        ("GET", "/health", 200),
        ("GET", "/v2/models/cartpole-ppo", 200),
        ("GET", "/openapi.json", 200),
        ("POST", "/invocations", 415),
        ("POST", "/v2/models/cartpole-ppo/infer", 400),
        ("GET", "/nowhere", 404),
        ("PUT", "/", 405),
    ],
)
def test_every_answer_to_an_allowed_origin_can_be_read(method: str, path: str, status: int) -> None:
    answer = asked(path, method=method)
    assert (answer.status, answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (
        status,
        SITE,
        "Origin",
    )
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"X-Model-Name", "X-Model-Version", "Retry-After", "WWW-Authenticate"} <= set(exposed)


def test_a_request_without_a_token_is_refused_readably() -> None:
    answer = asked("/model", token=True)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (401, SITE)


@pytest.mark.parametrize("path", ["/", "/model", "/invocations", "/v2/models/cartpole-ppo/infer", "/nowhere"])
@pytest.mark.parametrize("token", [False, True])
def test_a_preflight_is_answered_on_every_path_without_a_token(path: str, *, token: bool) -> None:
    answer = preflight(path, token=token)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == SITE
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert "Origin" in answer.headers["vary"]


def test_other_origins_are_not_allowed() -> None:
    assert "access-control-allow-origin" not in asked(origin=OTHER).headers
    assert asked(origin=OTHER).headers["vary"] == "Origin"
    refused = preflight("/", origin=OTHER, token=True)
    assert (refused.status, "access-control-allow-origin" in refused.headers) == (400, False)


def test_a_star_allows_every_origin() -> None:
    assert asked("/model", origin=OTHER, origins=("*",)).headers["access-control-allow-origin"] == "*"
