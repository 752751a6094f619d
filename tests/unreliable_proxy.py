"""A proxy before a real MLflow server that fails on purpose, in this process.

with unreliable_proxy("http://127.0.0.1:5000") as proxy:
    os.environ["MLFLOW_TRACKING_URI"] = proxy.url
    with proxy.failing(503, path="/api/"):            # every API call, while the block runs
        ...
    proxy.fail(500, path="log-batch", times=4)        # the next four of these
    proxy.fail(403, methods=["DELETE"])               # a verb that is refused
    proxy.fail(413, methods=["PUT"], over_bytes=1000)  # bodies that are too large
    proxy.fail(CLOSE, path="log-batch", times=1)      # the connection closes without an answer
    proxy.fail(None, delay_s=2)                       # the server's own answer, late
    proxy.repair()
"""

import contextlib
import http.client
import re
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CLOSE = 0
"""In place of a status: the connection is closed without an answer."""

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass
class Fault:
    """What the proxy does with a request, instead of forwarding it.

    Attributes:
        status: The status of the answer; CLOSE for no answer, None to forward the request after all.
        methods: The methods of the requests that fail; all if empty.
        path: A regular expression that is searched for in the path and query of a request.
        times: How many requests fail; None for all.
        over_bytes: Only requests with a larger body fail.
        lacking: Only requests whose headers do not contain this text fail, such as `Authorization: Bearer t`.
        delay_s: Seconds before the proxy does anything.
        body: The body of the answer. MLflow's client raises JSON as its own exception, with `error_code`.
    """

    status: int | None
    methods: Sequence[str] = ()
    path: str = ""
    times: int | None = None
    over_bytes: int = -1
    lacking: str | None = None
    delay_s: float = 0.0
    body: bytes = b"<html>out of order</html>"

    def applies(self, request: "_Handler", body: bytes) -> bool:
        """Return whether a request fails."""
        return (
            (self.times is None or self.times > 0)
            and (not self.methods or request.command in self.methods)
            and re.search(self.path, request.path) is not None
            and len(body) > self.over_bytes
            and (self.lacking is None or self.lacking not in str(request.headers))
        )


class UnreliableProxy:
    """Forwards requests to `target`, except those of its faults; the first fault that applies decides.

    Attributes:
        url: Where it listens.
        target: The URL of the server behind it; a test may change it.
        requests: The method and the path of each request so far, such as `POST /api/2.0/mlflow/runs/log-batch`.
    """

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self.requests: list[str] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        if tls is not None:
            # The thread of a connection does its handshake, which may fail or hang.
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def fail(self, status: int | None, **fault: object) -> Fault:
        """Let the requests that match fail from now on; the fields are those of `Fault`."""
        found = Fault(status, **fault)  # type: ignore[arg-type]
        with self._lock:
            self._faults.append(found)
        return found

    @contextlib.contextmanager
    def failing(self, status: int | None, **fault: object) -> Iterator[None]:
        """Let the requests that match fail within the block."""
        found = self.fail(status, **fault)
        try:
            yield
        finally:
            with self._lock:
                self._faults.remove(found)

    def repair(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._faults.clear()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fault_of(self, request: "_Handler", body: bytes) -> Fault | None:
        """Return the fault that a request meets, and count it."""
        with self._lock:
            self.requests.append(f"{request.command} {request.path}")
            found = next((fault for fault in self._faults if fault.applies(request, body)), None)
            if found is not None and found.times is not None:
                found.times -= 1
        return found


class _Handler(BaseHTTPRequestHandler):
    proxy: UnreliableProxy
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the client went away, or refuses our certificate
            if isinstance(self.request, ssl.SSLSocket):
                self.request.do_handshake()
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.fault_of(self, body)
        if fault is not None:
            time.sleep(fault.delay_s)
        if fault is None or fault.status is None:
            self._forward(body)
        elif fault.status == CLOSE:
            self.close_connection = True
        else:
            self._send(fault.status, [("Content-Type", "text/html")], fault.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815  # http.server's names

    def _forward(self, body: bytes) -> None:
        target = urlsplit(self.proxy.target)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        with contextlib.closing(http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)) as upstream:
            try:
                upstream.request(self.command, self.path, body or None, headers)
                response = upstream.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException):
                self._send(502, [], b"bad gateway")
                return
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
        self._send(response.status, kept, answer)

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write no line for each request."""


@contextlib.contextmanager
def unreliable_proxy(target: str, tls: ssl.SSLContext | None = None) -> Iterator[UnreliableProxy]:
    """Start a proxy before the server at `target`, an http:// URL, and stop it with the block.

    With `tls`, the proxy itself is an https:// server.
    """
    proxy = UnreliableProxy(target, tls)
    try:
        yield proxy
    finally:
        proxy.close()
