"""A real HTTP server that fails on purpose: each request is handled as the next word of its script says."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from serving.ray import haproxy_wrapper

MODEL = b"X-Model-Version: 3\r\n"
HANG_S = 0.6


def http(status: str, body: bytes, headers: bytes = MODEL) -> bytes:
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status.encode(), headers, len(body), body)


ERROR = b'{"error": {"code": "overloaded", "message": "try again in a second"}}'
ANSWERS = {
    "act": http("200 OK", b'{"action": 1}'),
    "act and close": http("200 OK", b'{"action": 1}'),
    "break off": http("200 OK", b'{"action": 1}')[:-5],
    "busy": http("503 Service Unavailable", ERROR),
    "busy for a second": http("503 Service Unavailable", ERROR, MODEL + b"Retry-After: 1\r\n"),
    "busy for an hour": http("503 Service Unavailable", ERROR, MODEL + b"Retry-After: 3600\r\n"),
    "no replica": haproxy_wrapper.error_response(*haproxy_wrapper.UNAVAILABLE).encode(),
    "bad gateway": http("502 Bad Gateway", b"<html>", b""),
    "gateway timeout": http("504 Gateway Timeout", b"<html>", b""),
    "reject": http("422 Unprocessable Entity", ERROR.replace(b"overloaded", b"observation_shape")),
    "fail": http("500 Internal Server Error", ERROR.replace(b"overloaded", b"policy_failed")),
    "garble": http("200 OK", b"<html>"),
}


class FaultyServer:
    """Records the `requests` that it received and the number of `connections` that were opened."""

    def __init__(self, script: list[str]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._script = list(script)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/cartpole-ppo"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection:
            while request := _read(connection):
                self.requests.append(request)
                if not self._respond(connection, self._script.pop(0) if self._script else "act"):
                    return

    @staticmethod
    def _respond(connection: socket.socket, word: str) -> bool:
        if word == "hang":
            time.sleep(HANG_S)
            return False
        connection.sendall(ANSWERS.get(word, b""))
        return word in ANSWERS and word not in {"break off", "act and close"}

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _read(connection: socket.socket) -> bytes:
    request = b""
    try:
        while b"\r\n\r\n" not in request or not _is_complete(request):
            if not (part := connection.recv(65536)):
                return b""
            request += part
    except ConnectionError:
        return b""
    return request


def _is_complete(request: bytes) -> bool:
    head, _, body = request.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().splitlines() if line.startswith(b"content-length")]
    return len(body) >= int(lengths[0]) if lengths else True


@contextmanager
def faulty_server(*script: str) -> Iterator[FaultyServer]:
    server = FaultyServer(list(script))
    try:
        yield server
    finally:
        server.close()
