"""HAProxy itself, with the configuration that Ray Serve writes and the wrapper edits."""

import asyncio
import contextlib
import http.client
import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests

from serving.ray import haproxy_wrapper, settings
from tests.workshop import await_true, free_port

ONE = b"GET /app/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
UNAVAILABLE = {"error": {"code": "unavailable", "message": "no replica can answer; try again in a second"}}


class Application:
    """Answers as a replica or as Serve's proxy does, and counts the requests by path."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        self.requests[path] += 1
        await receive()
        status, headers = 200, [(b"content-type", b"text/plain")]
        if path.startswith("/app/status/"):
            status = int(path.rpartition("/")[2])
        if path == "/app/hangs":
            await asyncio.sleep(1)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if path == "/app/stream":
            for _ in range(8):
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0.1)
        await send({"type": "http.response.body", "body": b"done"})


class Proxy(NamedTuple):
    url: str
    port: int


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """Return a function that starts HAProxy before servers, by the names that Serve gives them and their URLs."""
    running: list[subprocess.Popen[bytes]] = []

    def start_proxy(changes: dict[str, str] | None = None, **servers: str) -> Proxy:
        port = free_port()
        configuration = tmp_path / "haproxy.cfg"
        configuration.write_text(generated(tmp_path, port, servers, changes or {}))
        binary = settings.haproxy_binary()
        assert binary is not None
        wrapper = [sys.executable, "-I", "-S", haproxy_wrapper.__file__]
        running.append(subprocess.Popen([*wrapper, binary, "-db", "-q", "-f", str(configuration)]))
        proxy = Proxy(f"http://127.0.0.1:{port}", port)
        await_true(lambda: listens(port), "HAProxy listens")
        return proxy

    yield start_proxy
    for process in running:
        process.terminate()
        process.wait()


def generated(directory: Path, port: int, servers: dict[str, str], changes: dict[str, str]) -> str:
    """Return the configuration that Serve writes for an application at /app, with some text replaced."""
    from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
    from ray.serve.config import HTTPOptions

    serve = settings.serve_settings(cpus=2)
    paths = {name: str(directory / name) for name in ("socket_path", "server_state_base", "server_state_file")}
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        timeout_server_s=int(serve["RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"]),
        timeout_client_s=int(serve["RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"]),
        retry_on=serve["RAY_SERVE_HAPROXY_RETRY_ON"],
        retries=2,
        nbthread=1,
        bufsize=int(serve["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"]),
        metrics_enabled=False,
        has_received_routes=True,
        is_head=True,
        **paths,
    )
    ports = {name: int(url.rpartition(":")[2]) for name, url in servers.items()}
    replicas = [ServerConfig(name, "127.0.0.1", ports[name]) for name in ports if name.startswith("SERVE_REPLICA")]
    fallbacks = [ServerConfig(name, "127.0.0.1", ports[name]) for name in ports if name.startswith("SERVE_PROXY")]
    backend = BackendConfig("http-app", "/app", servers=replicas, fallback_server=next(iter(fallbacks), None))
    api = HAProxyApi(config, {"http-app": backend} if servers else {}, str(directory / "haproxy.cfg"))
    api._generate_config_file_internal()
    text = haproxy_wrapper.edited((directory / "haproxy.cfg").read_text(), directory)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture
def send() -> Iterator[Callable[[Proxy, bytes], socket.socket]]:
    """Return a function that sends bytes over a new connection, which is closed at the end."""
    with contextlib.ExitStack() as connections:

        def send_bytes(proxy: Proxy, content: bytes) -> socket.socket:
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
            connection.settimeout(10)
            connection.sendall(content)
            return connection

        yield send_bytes


def assert_unavailable(response: requests.Response) -> None:
    assert (response.status_code, response.json()) == (503, UNAVAILABLE)
    assert (response.headers["Retry-After"], response.headers["Content-Type"]) == ("1", "application/json")


def test_without_a_replica_the_response_is_a_503_in_json(start: Callable[..., Proxy]) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    assert_unavailable(requests.get(start(SERVE_REPLICA_1=nobody).url + "/app/x", timeout=10))


def test_a_replica_that_never_answers_becomes_a_503_in_json(
    start: Callable[..., Proxy], serve_http: Callable[[Any], str]
) -> None:
    application = Application()
    proxy = start({"timeout server 2s": "timeout server 200ms"}, SERVE_REPLICA_1=serve_http(application))
    assert_unavailable(requests.get(proxy.url + "/app/hangs", timeout=10))
    assert application.requests["/app/hangs"] == 3, "the request and its two repetitions"


@pytest.mark.parametrize("status", [404, 500, 503])
def test_an_error_of_serves_own_proxy_becomes_a_503_in_json(
    start: Callable[..., Proxy], serve_http: Callable[[Any], str], status: int
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    proxy = start(SERVE_REPLICA_1=nobody, SERVE_PROXY_ACTOR_1=serve_http(Application()))
    assert requests.get(proxy.url + "/app/x", timeout=10).text == "done"
    assert_unavailable(requests.get(f"{proxy.url}/app/status/{status}", timeout=10))


@pytest.mark.parametrize("status", [400, 422, 500, 503])
def test_an_error_of_a_replica_passes_unchanged_and_is_not_repeated(
    start: Callable[..., Proxy], serve_http: Callable[[Any], str], status: int
) -> None:
    application = Application()
    proxy = start(SERVE_REPLICA_1=serve_http(application))
    response = requests.post(f"{proxy.url}/app/status/{status}", b"{}", timeout=10)
    assert (response.status_code, response.text) == (status, "done")
    assert application.requests[f"/app/status/{status}"] == 1


def test_an_unknown_path_is_a_404_in_json(start: Callable[..., Proxy], serve_http: Callable[[Any], str]) -> None:
    response = requests.get(start(SERVE_REPLICA_1=serve_http(Application())).url + "/nowhere", timeout=10)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "path_unknown")


def test_before_the_first_application_every_path_is_a_503_in_json(start: Callable[..., Proxy]) -> None:
    response = requests.get(start().url + "/app", timeout=10)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert response.headers["Retry-After"] == "1"


def test_clients_that_send_no_whole_request_are_disconnected_and_lock_nobody_out(
    start: Callable[..., Proxy], serve_http: Callable[[Any], str], send: Callable[[Proxy, bytes], socket.socket]
) -> None:
    changes = {"http-request 10s": "http-request 500ms", "timeout client 30s": "timeout client 1s"}
    proxy = start({**changes, "maxconn 4096": "maxconn 8"}, SERVE_REPLICA_1=serve_http(Application()))
    headers = b"POST /app/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    slow = [send(proxy, content) for content in [b"", b"G", ONE[:-2], headers, headers + b"1"] * 2]
    other = send(proxy, ONE)
    assert other.recv(12) == b"HTTP/1.1 200"
    texts = [connection.recv(4096) for connection in slow]
    assert {text[:12] for text in texts} == {b"", b"HTTP/1.1 408"}
    assert json.loads(texts[3].partition(b"\r\n\r\n")[2])["error"]["code"] == "request_incomplete"
    assert re.search(rb"(?i)\r\nx-request-id: [0-9a-f-]{36}\r\n", texts[3])


def test_streams_and_connections_between_requests_outlast_the_timeouts_of_a_request(
    start: Callable[..., Proxy], serve_http: Callable[[Any], str]
) -> None:
    changes = {"http-request 10s": "http-request 300ms", "timeout client 30s": "timeout client 300ms"}
    proxy = start(changes, SERVE_REPLICA_1=serve_http(Application()))
    assert requests.get(proxy.url + "/app/stream", timeout=10).text == "x" * 8 + "done"
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    with contextlib.closing(connection):
        for _ in range(2):
            connection.request("GET", "/app/x")
            assert connection.getresponse().read() == b"done"
            connection.auto_open = False
            time.sleep(0.5)


class Echo:
    """Answers with the request's X-Request-ID in its body, and as Serve does in a header."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        headers = [(b"content-type", b"text/plain"), *((b"x-request-id", value) for value in given)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b" ".join(given)})


@pytest.mark.parametrize("given", ["7", "0191d9a4-8f1e-7c5b-9c3e-2f6f4f1b8c11", "a" * 128, "dGVzdA+/=:."])
def test_a_valid_request_id_of_the_client_reaches_the_replica_and_the_response(
    start: Callable[..., Proxy], serve_http: Callable[[Any], str], given: str
) -> None:
    proxy = start(SERVE_REPLICA_1=serve_http(Echo()))
    response = requests.get(proxy.url + "/app/x", headers={"X-Request-ID": given}, timeout=10)
    assert (response.text, response.headers["X-Request-ID"]) == (given, given)


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "a,b", '"', "{}", "ü", "a\tb"])
def test_a_request_without_a_valid_id_gets_one(
    start: Callable[..., Proxy], serve_http: Callable[[Any], str], given: str
) -> None:
    proxy = start(SERVE_REPLICA_1=serve_http(Echo()))
    headers = {"X-Request-ID": given.encode()}
    first, second = (requests.get(proxy.url + "/app/x", headers=headers, timeout=10) for _ in range(2))
    assert re.fullmatch(r"[0-9a-f-]{36}", first.text)
    assert first.text == first.headers["X-Request-ID"] != second.text


def test_of_several_request_ids_one_is_taken(
    start: Callable[..., Proxy], serve_http: Callable[[Any], str], send: Callable[[Proxy, bytes], socket.socket]
) -> None:
    proxy = start(SERVE_REPLICA_1=serve_http(Echo()))
    given = (
        b"GET /app/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Request-ID: bad one\r\nX-Request-ID: good\r\n\r\n"
    )
    response = send(proxy, given).makefile("rb").read()
    assert b"\r\ngood\r\n" in response
    assert response.lower().count(b"x-request-id: good\r\n") == response.lower().count(b"x-request-id:") == 1


def test_an_error_of_haproxy_carries_the_request_id(start: Callable[..., Proxy]) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    response = requests.get(start(SERVE_REPLICA_1=nobody).url + "/app/x", headers={"X-Request-ID": "7"}, timeout=10)
    assert_unavailable(response)
    assert response.headers["X-Request-ID"] == "7"
