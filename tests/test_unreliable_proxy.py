"""The unreliable proxy forwards requests unchanged, except those that it was told to fail."""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import requests

from tests.unreliable_proxy import CLOSE, unreliable_proxy


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = f"{self.command} {self.path} {body.decode()} {self.headers['X-Mark']}".encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_DELETE = do_POST  # noqa: N815  # http.server's names

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    with unreliable_proxy(f"http://127.0.0.1:{server.server_port}") as proxy:
        yield proxy
    server.shutdown()
    thread.join()
    server.server_close()


def status(proxy, path="/a", method="GET", **options):
    return requests.request(method, proxy.url + path, timeout=10, **options).status_code


def test_a_request_without_a_fault_reaches_the_server(proxy):
    answer = requests.post(f"{proxy.url}/a?b=c", data="body", headers={"X-Mark": "mark"}, timeout=10)
    assert (answer.status_code, answer.text) == (201, "POST /a?b=c body mark")
    assert proxy.requests == ["POST /a?b=c"]


def test_the_requests_that_match_fail_until_the_block_ends(proxy):
    with proxy.failing(503, path="^/api/", methods=["GET"]):
        found = status(proxy, "/api/x"), status(proxy, "/api/x"), status(proxy, "/b"), status(proxy, "/api/x", "DELETE")
    assert (*found, status(proxy, "/api/x")) == (503, 503, 201, 201, 201)


def test_a_fault_can_be_limited_to_some_requests_large_bodies_or_a_missing_header(proxy):
    proxy.fail(500, times=2)
    assert [status(proxy) for _ in range(3)] == [500, 500, 201]
    proxy.fail(413, over_bytes=3)
    assert (status(proxy, method="POST", data="1234"), status(proxy, method="POST", data="123")) == (413, 201)
    proxy.repair()
    proxy.fail(401, lacking="X-Mark: 1")
    assert (status(proxy), status(proxy, headers={"X-Mark": "1"})) == (401, 201)


def test_it_closes_connections_delays_answers_and_names_a_server_that_is_down(proxy):
    proxy.fail(CLOSE, times=1)
    with pytest.raises(requests.ConnectionError):
        status(proxy)
    proxy.fail(None, times=1, delay_s=0.1)
    start = time.monotonic()
    assert status(proxy) == 201
    assert time.monotonic() - start >= 0.1
    proxy.target = "http://127.0.0.1:1"
    assert status(proxy) == 502
