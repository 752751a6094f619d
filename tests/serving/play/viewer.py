"""A client of /play/events through the ASGI interface."""

import asyncio
import contextlib
import json
from typing import Any

import psutil

from serving.http.policy_app import PolicyApp


def environments(of: int | None = None) -> list[psutil.Process]:
    """Return the environments' processes that are children of a process, by default of this one."""
    found = []
    for child in psutil.Process(of).children():
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "serving.play.environment" in child.cmdline():
                found.append(child)
    return found


class Viewer:
    """A running request, by default for /play/events."""

    def __init__(self, app: PolicyApp, method: str = "GET", path: str = "/play/events") -> None:
        self.start: dict[str, Any] = {}
        self.raw: list[bytes] = []
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._messages.put_nowait({"type": "http.request", "body": b""})
        self._received = asyncio.Event()
        scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
        self.request = asyncio.ensure_future(app(scope, self._messages.get, self._send))

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not self.start, "a second start"
            self.start = message
        else:
            self.raw.append(message["body"])
        self._received.set()

    @property
    def events(self) -> list[tuple[str, Any]]:
        lines = b"".join(self.raw).decode().split("\n\n")
        parts = [line.split("\n") for line in lines if line.startswith("event: ")]
        return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]

    def named(self, name: str) -> list[Any]:
        return [content for found, content in self.events if found == name]

    async def await_events(self, name: str, count: int = 1) -> list[Any]:
        """Return the events of a name as soon as there are `count`."""
        async with asyncio.timeout(20):
            while len(self.named(name)) < count:
                self._received.clear()
                await self._received.wait()
        return self.named(name)

    async def disconnect(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})
        async with asyncio.timeout(5):
            await self.request
