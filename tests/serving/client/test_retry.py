"""Retries and final errors of both clients against a server that fails on purpose."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from serving.client.async_client import AsyncPolicyClient
from serving.client.client import PolicyClient
from serving.client.errors import RequestRefused, ServerUnreachable, ServerUrlInvalid
from serving.client.retry import MAX_BACKOFF_S, Attempts, NoResponse, RetryPolicy
from tests.serving.faulty_server import faulty_server

Act = Callable[..., list[Any]]


def act_blocking(url: str, times: int = 1, **options: Any) -> list[Any]:
    with PolicyClient(url, **options) as client:
        return [client.act([0, 0, 1, 0]) for _ in range(times)]


def act_with_asyncio(url: str, times: int = 1, **options: Any) -> list[Any]:
    async def run() -> list[Any]:
        async with AsyncPolicyClient(url, **options) as client:
            return [await client.act([0, 0, 1, 0]) for _ in range(times)]

    return asyncio.run(run())


@pytest.fixture(params=[act_blocking, act_with_asyncio])
def act(request: pytest.FixtureRequest) -> Act:
    return request.param


@pytest.mark.parametrize("fault", ["close", "break off", "busy", "bad gateway", "gateway timeout"])
def test_temporary_failures_are_retried(act: Act, fault: str) -> None:
    with faulty_server(fault, fault) as server:
        assert act(server.url) == [1]
        assert len(server.requests) == 3


def test_retries_leave_the_callers_random_generator_alone(act: Act) -> None:
    random.seed(0)
    before = random.getstate()
    with faulty_server("close") as server:
        act(server.url)
    assert random.getstate() == before


def test_a_response_that_takes_too_long_is_retried(act: Act) -> None:
    with faulty_server("hang") as server:
        assert act(server.url, timeout_s=0.2) == [1]


@pytest.mark.parametrize(("fault", "status"), [("reject", 422), ("fail", 500)])
def test_other_errors_are_not_retried(act: Act, fault: str, status: int) -> None:
    with faulty_server(fault) as server:
        with pytest.raises(RequestRefused) as caught:
            act(server.url)
        assert (caught.value.status, len(server.requests)) == (status, 1)


def test_the_retry_waits_as_long_as_retry_after_requests(act: Act) -> None:
    with faulty_server("busy for a second") as server:
        start = time.monotonic()
        assert act(server.url) == [1]
        assert time.monotonic() - start >= 1


def test_the_proxys_error_without_a_replica_is_retried_and_says_why(act: Act) -> None:
    with faulty_server("no replica") as server:
        assert act(server.url) == [1]
        assert len(server.requests) == 2
    with faulty_server("no replica") as server, pytest.raises(ServerUnreachable, match="no replica can answer"):
        act(server.url, retries=0)


def test_a_retry_after_beyond_the_total_timeout_raises_at_once(act: Act) -> None:
    with faulty_server("busy for an hour") as server:
        with pytest.raises(RequestRefused, match="503 overloaded: try again in a second"):
            act(server.url)
        assert len(server.requests) == 1


def test_attempts_are_limited_in_number_and_total_time(act: Act) -> None:
    with faulty_server("close", "close") as server:
        with pytest.raises(ServerUnreachable, match="the connection broke"):
            act(server.url, retries=1)
        assert len(server.requests) == 2
    with faulty_server(*["hang"] * 9) as server:
        start = time.monotonic()
        with pytest.raises(ServerUnreachable, match="no answer in time"):
            act(server.url, timeout_s=0.2, total_timeout_s=0.3, retries=9)
        assert time.monotonic() - start < 2
        assert len(server.requests) <= 2, "the total time ended the attempts"


def test_the_delay_stays_bounded_after_any_number_of_retries() -> None:
    """A robot may retry for hours, and 0.1 * 2 ** 1030 is no float."""
    attempts = Attempts(RetryPolicy(total_timeout_s=1e9, retries=10**9))
    delays = [attempts.delay_after(NoResponse("connection refused", OSError())) for _ in range(1100)]
    assert all(delay is not None and delay <= MAX_BACKOFF_S for delay in delays)


def test_the_connection_is_kept_and_replaced_once_the_server_closes_it(act: Act) -> None:
    with faulty_server("act", "act", "act and close", "act") as server:
        assert act(server.url, times=4) == [1] * 4
        assert server.connections == 2


def test_a_body_that_is_not_json_raises_server_unreachable(act: Act) -> None:
    with faulty_server("garble") as server, pytest.raises(ServerUnreachable, match="a body that is not JSON"):
        act(server.url)


def test_the_token_is_sent_with_each_request_even_with_a_netrc_file(
    act: Act, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with faulty_server("act", "act") as server:
        act(server.url, times=2, token="secret")
        assert all(b"\r\nauthorization: bearer secret\r\n" in request.lower() for request in server.requests)


@pytest.mark.parametrize("url", ["127.0.0.1:8000/cartpole-ppo", "ftp://a/b", "http://", "", "http://[::1/x"])
def test_an_invalid_url_raises_an_error_with_an_example(act: Act, url: str) -> None:
    with pytest.raises(ServerUrlInvalid) as caught:
        act(url)
    assert str(caught.value) == (
        f"'{url}' is not the URL of a policy server, expected one like http://127.0.0.1:8000/cartpole-ppo"
    )


def test_an_unreachable_server_raises_an_error_with_the_remedy(act: Act) -> None:
    with pytest.raises(ServerUnreachable, match=r"\(connection refused\)\. Start one: python -m serving run"):
        act("http://127.0.0.1:1/cartpole-ppo", retries=0)
