"""Requests to this machine pass no proxy; a message names the proxy that a request to another machine passed."""

import asyncio
import os
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

import pytest
import requests
from click.testing import CliRunner

from serving.cli import main
from serving.client.async_client import AsyncPolicyClient
from serving.client.client import PolicyClient
from serving.client.errors import ServerUnreachable
from serving.client.proxies import bypass_loopback, proxy_of
from serving.commands import status
from serving.http.policy_app import PolicyApp
from serving.ray.cluster import _answers
from serving.registry.errors import TrackingServerUnreachable
from tests.serving.faulty_server import faulty_server

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
DEAD = "http://u:secret@127.0.0.1:1"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(params=["http_proxy", "ALL_PROXY"])
def dead_proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy at which nothing listens."""
    monkeypatch.setenv(request.param, DEAD)


@pytest.mark.usefixtures("dead_proxy")
@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://policy.example/x", DEAD),
        ("http://10.1.2.3:8000/x", DEAD),
        ("http://127.0.0.1:8000/x", None),
        ("http://127.8.0.1/x", None),
        ("http://localhost:8000", None),
        ("http://[::1]:8000/x", None),
        ("http://inner.example/x", None),
        ("http://192.168.7.9/x", None),
    ],
)
def test_the_proxy_of_a_url(url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "inner.example,192.168.0.0/16")
    assert proxy_of(url) == proxy


@pytest.mark.usefixtures("dead_proxy")
def test_both_clients_reach_a_server_of_this_machine(app: PolicyApp, serve_http: Callable[[Any], str]) -> None:
    url = serve_http(app)

    async def act() -> Any:
        async with AsyncPolicyClient(url) as client:
            return await client.act([0, 0, 1, 0])

    with PolicyClient(url) as client:
        assert client.act([0, 0, 1, 0]) == 1
    assert asyncio.run(act()) == 1
    assert _answers(f"{url}/health"), "as the probe of a server that starts does"


@pytest.mark.usefixtures("dead_proxy")
@pytest.mark.parametrize("command", ["status", "query"])
def test_commands_reach_a_server_of_this_machine(
    command: str, app: PolicyApp, serve_http: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "INTERVAL_S", 0.01)
    app.max_body_bytes = 1 << 20
    options = ["--episodes", "1", "--quiet"] if command == "query" else []
    result = CliRunner().invoke(main, [command, "--url", serve_http(app), *options])
    assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("dead_proxy")
def test_libraries_reach_a_server_of_this_machine_once_loopback_is_bypassed(
    app: PolicyApp, serve_http: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "inner.example")
    url = f"{serve_http(app)}/health"
    bypass_loopback()
    assert requests.get(url, timeout=5).ok
    with urlopen(url, timeout=5) as answer:
        assert answer.status == 200
    assert os.environ["no_proxy"].startswith("inner.example,localhost,")
    bypass_loopback()
    assert os.environ["no_proxy"].count("localhost") == 1


@pytest.mark.usefixtures("dead_proxy")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_proxy_that_is_down_is_named_without_its_password(asynchronous: bool) -> None:  # noqa: FBT001
    async def ask() -> Any:
        async with AsyncPolicyClient("http://policy.example/x", retries=0) as client:
            return await client.model()

    def query() -> Any:
        return asyncio.run(ask()) if asynchronous else PolicyClient("http://policy.example/x", retries=0).model()

    with pytest.raises(ServerUnreachable) as caught:
        query()
    assert "(connection refused, through the proxy http://***@127.0.0.1:1)" in str(caught.value)


def test_a_proxy_that_answers_itself_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_server("bad gateway") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/cartpole-ppo"))
        with PolicyClient("http://policy.example/x", retries=0) as client, pytest.raises(ServerUnreachable) as caught:
            client.model()
    assert "(HTTP status 502 from another server, through the proxy http://127.0.0.1:" in str(caught.value)


@pytest.mark.usefixtures("dead_proxy")
def test_the_proxy_before_mlflow_is_named() -> None:
    assert "(connection refused, through the proxy http://***@127.0.0.1:1)" in str(
        TrackingServerUnreachable("http://mlflow.example", "connection refused")
    )
    assert str(TrackingServerUnreachable("http://127.0.0.1:1", "refused")).startswith(
        "no MLflow server answers at http://127.0.0.1:1 (refused). Start it"
    )
