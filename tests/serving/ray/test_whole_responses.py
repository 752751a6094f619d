"""Replicas write a response at once: with uvicorn 0.54.0, whose private part `serving/ray/internals.py` uses."""

import asyncio
from inspect import getsource
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.ray import internals


class Transport(asyncio.Transport):
    """A connection that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.writes.append(b"closed")

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        pass


def writes(request: bytes, *bodies: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> list[bytes]:
    """What uvicorn writes in answer to a request, whose application sends these parts of a body."""

    async def application(_scope: object, _receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    async def exchange() -> list[bytes]:
        config = uvicorn.Config(application, lifespan="off", log_config=None, server_header=False, date_header=False)
        config.load()
        protocol, transport = HttpToolsProtocol(config, uvicorn.Server(config).server_state, {}), Transport()
        protocol.connection_made(transport)
        protocol.data_received(request)
        for _ in range(10):
            await asyncio.sleep(0)
        protocol.timeout_keep_alive_task and protocol.timeout_keep_alive_task.cancel()
        return transport.writes

    return asyncio.run(exchange())


@pytest.mark.parametrize(
    ("request_line", "bodies", "expected"),
    [
        (b"GET / HTTP/1.1", [b"12345"], [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12345"]),
        (b"GET / HTTP/1.1", [b""], [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""]),
        (b"HEAD / HTTP/1.1", [b"12345"], [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"]),
        (b"GET / HTTP/1.1", [b"12", b"345"], [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", b"12", b"345"]),
        (
            b"GET / HTTP/1.1\r\nConnection: close",
            [b"12345"],
            [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n12345", b"closed"],
        ),
    ],
)
def test_the_head_of_a_response_is_sent_with_its_body(
    monkeypatch: pytest.MonkeyPatch, request_line: bytes, bodies: list[bytes], expected: list[bytes]
) -> None:
    source = getsource(httptools_impl)  # another test may have replaced the method
    assert "self.transport.write(" in source, "uvicorn writes otherwise: adapt internals.send_responses_whole"
    monkeypatch.setattr(RequestResponseCycle, "send", RequestResponseCycle.send)  # restored afterwards
    internals.send_responses_whole()
    internals.send_responses_whole()
    length = b"%d" % sum(map(len, bodies))
    found = writes(request_line + b"\r\nHost: a\r\n\r\n", *bodies, headers=((b"content-length", length),))
    assert found == expected
