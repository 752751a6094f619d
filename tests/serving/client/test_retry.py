"""Both clients against a server that misbehaves: what they try again, and what they say in the end."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from serving.client.async_client import AsyncPolicyClient
from serving.client.client import PolicyClient
from serving.client.errors import RequestRefused, ServerUnreachable, ServerUrlInvalid
from tests.serving.misbehaving import misbehaving

Acts = Callable[..., list[Any]]


def in_turn(url: str, times: int = 1, **options: Any) -> list[Any]:
    with PolicyClient(url, **options) as client:
        return [client.act([0, 0, 1, 0]) for _ in range(times)]


def in_turn_async(url: str, times: int = 1, **options: Any) -> list[Any]:
    async def run() -> list[Any]:
        async with AsyncPolicyClient(url, **options) as client:
            return [await client.act([0, 0, 1, 0]) for _ in range(times)]

    return asyncio.run(run())


@pytest.fixture(params=[in_turn, in_turn_async])
def act(request: pytest.FixtureRequest) -> Acts:
    return request.param


@pytest.mark.parametrize("fault", ["close", "break off", "busy", "bad gateway", "gateway timeout"])
def test_what_may_pass_is_tried_again(act: Acts, fault: str) -> None:
    with misbehaving(fault, fault) as server:
        assert act(server.url) == [1]
        assert len(server.requests) == 3


def test_an_answer_that_takes_too_long_is_asked_for_again(act: Acts) -> None:
    with misbehaving("hang") as server:
        assert act(server.url, timeout_s=0.2) == [1]


@pytest.mark.parametrize(("fault", "status"), [("refuse", 422), ("fail", 500)])
def test_a_final_answer_is_not_asked_for_again(act: Acts, fault: str, status: int) -> None:
    with misbehaving(fault) as server:
        with pytest.raises(RequestRefused) as caught:
            act(server.url)
        assert (caught.value.status, len(server.requests)) == (status, 1)


def test_retry_after_is_honoured(act: Acts) -> None:
    with misbehaving("busy for a second") as server:
        start = time.monotonic()
        assert act(server.url) == [1]
        assert time.monotonic() - start >= 1


def test_who_may_not_wait_so_long_hears_why_at_once(act: Acts) -> None:
    with misbehaving("busy for an hour") as server:
        with pytest.raises(RequestRefused, match="503 overloaded: try again in a second"):
            act(server.url)
        assert len(server.requests) == 1


def test_attempts_are_bounded_in_number_and_in_time(act: Acts) -> None:
    with misbehaving("close", "close") as server:
        with pytest.raises(ServerUnreachable, match="the connection broke"):
            act(server.url, retries=1)
        assert len(server.requests) == 2
    with misbehaving(*["hang"] * 9) as server:
        start = time.monotonic()
        with pytest.raises(ServerUnreachable, match="no answer in time"):
            act(server.url, timeout_s=0.2, total_timeout_s=0.3, retries=9)
        assert time.monotonic() - start < 2


def test_a_connection_is_kept_and_one_that_the_server_closed_is_replaced(act: Acts) -> None:
    with misbehaving("act", "act", "act and close", "act") as server:
        assert act(server.url, times=4) == [1] * 4
        assert server.connections == 2


def test_a_body_that_is_not_json_is_no_answer(act: Acts) -> None:
    with misbehaving("garble") as server, pytest.raises(ServerUnreachable, match="a body that is not JSON"):
        act(server.url)


def test_the_token_goes_with_each_request_even_beside_a_netrc(
    act: Acts, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with misbehaving("act", "act") as server:
        act(server.url, times=2, token="secret")
        assert all(b"\r\nauthorization: bearer secret\r\n" in request.lower() for request in server.requests)


@pytest.mark.parametrize("url", ["127.0.0.1:8000/cartpole-ppo", "ftp://a/b", "http://", "", "http://[::1/x"])
def test_what_is_no_url_is_named_with_an_example(act: Acts, url: str) -> None:
    with pytest.raises(ServerUrlInvalid) as caught:
        act(url)
    assert str(caught.value) == (
        f"'{url}' is no URL of a policy server, expected one like http://127.0.0.1:8000/cartpole-ppo"
    )


def test_no_server_is_named_with_the_remedy(act: Acts) -> None:
    with pytest.raises(ServerUnreachable, match=r"\(connection refused\)\. Start one: python -m serving run"):
        act("http://127.0.0.1:1/cartpole-ppo", retries=0)
