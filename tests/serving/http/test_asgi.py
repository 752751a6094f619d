import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from serving.http.asgi import ClientGoneError, respond_in_parts


class Client:
    """Receives the messages of a response, and disconnects after a number of them."""

    def __init__(self, max_messages: int = 100) -> None:
        self.got: list[dict[str, Any]] = []
        self._max_messages = max_messages
        self._gone = asyncio.Event()

    async def send(self, message: Any) -> None:
        self.got.append(message)
        if len(self.got) == self._max_messages:
            self._gone.set()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}


class Parts:
    """Yields numbers, then raises the given error if there is one; records whether it was closed."""

    def __init__(self, count: int, then: Exception | None = None) -> None:
        self.closed = False
        self._count, self._then = count, then

    async def made(self) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(self._count):
                yield b"%d" % number
                await asyncio.sleep(0)
            if self._then:
                raise self._then
        finally:
            self.closed = True


def answered(parts: Parts, max_messages: int = 100) -> list[dict[str, Any]]:
    async def answer() -> list[dict[str, Any]]:
        client = Client(max_messages)
        try:
            await respond_in_parts(client.receive, client.send, [], parts.made())
        except ClientGoneError:
            client.got.append({"type": "broken off"})
        assert parts.closed
        return client.got

    return asyncio.run(answer())


def test_parts_are_sent_one_by_one() -> None:
    messages = answered(Parts(2))
    assert [message.get("body") for message in messages] == [None, b"0", b"1", b""]
    assert [message.get("more_body", False) for message in messages] == [False, True, True, False]


def test_a_response_ends_when_its_client_disconnects() -> None:
    messages = answered(Parts(10_000), max_messages=5)
    assert messages[-1] == {"type": "broken off"}
    assert len(messages) < 20


def test_an_error_before_the_first_part_is_raised() -> None:
    with pytest.raises(ValueError, match="early"):
        answered(Parts(0, ValueError("early")))


def test_a_later_error_breaks_off_the_response(caplog: pytest.LogCaptureFixture) -> None:
    messages = answered(Parts(1, ValueError("late")))
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body", "broken off"]
    assert "a response broke off: ValueError('late')" in caplog.text
