import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from serving.http.asgi import ClientGoneError, respond_in_parts


class Client:
    """Takes what is sent; hangs up after so many messages."""

    def __init__(self, stays_for: int = 100) -> None:
        self.got: list[dict[str, Any]] = []
        self._stays_for = stays_for
        self._gone = asyncio.Event()

    async def send(self, message: Any) -> None:
        self.got.append(message)
        if len(self.got) == self._stays_for:
            self._gone.set()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}


class Parts:
    """Numbers, then what is told to happen; knows whether it was closed."""

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


def answered(parts: Parts, stays_for: int = 100) -> list[dict[str, Any]]:
    async def answer() -> list[dict[str, Any]]:
        client = Client(stays_for)
        try:
            await respond_in_parts(client.receive, client.send, 200, [], parts.made())
        except ClientGoneError:
            client.got.append({"type": "broken off"})
        assert parts.closed
        return client.got

    return asyncio.run(answer())


def test_parts_are_sent_as_they_are_made() -> None:
    messages = answered(Parts(2))
    assert [message.get("body") for message in messages] == [None, b"0", b"1", b""]
    assert [message.get("more_body", False) for message in messages] == [False, True, True, False]


def test_a_client_that_hangs_up_ends_what_is_made_for_it() -> None:
    messages = answered(Parts(10_000), stays_for=5)
    assert messages[-1] == {"type": "broken off"}
    assert len(messages) < 20


def test_what_fails_before_the_first_part_can_still_be_refused() -> None:
    with pytest.raises(ValueError, match="early"):
        answered(Parts(0, ValueError("early")))


def test_what_fails_later_breaks_the_answer_off(caplog: pytest.LogCaptureFixture) -> None:
    messages = answered(Parts(1, ValueError("late")))
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body", "broken off"]
    assert "an answer broke off: ValueError('late')" in caplog.text
