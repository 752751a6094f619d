"""A server that takes the names of episodes and feedback about them, in front of a real application."""

import json
from typing import Any, NamedTuple

from serving.http.policy_app import PolicyApp

KEYS = ("episodes", "steps", "rewards")


class Received(NamedTuple):
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class RecordingServer:
    """Records requests; answers feedback by `status`, and everything else as the application does."""

    def __init__(self, app: PolicyApp) -> None:
        self.app = app
        self.received: list[Received] = []
        self.statuses: list[int] = []
        """The statuses of the next feedback; 202 when there are no more."""

    @property
    def acts(self) -> list[Received]:
        return [each for each in self.received if each.path == "/"]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for each in self.received if each.path == "/feedback" for event in each.body["events"]]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body = json.loads(message.get("body") or b"{}")
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.received.append(Received(scope["path"], headers, body))
        if scope["path"] == "/feedback":
            await self._accept(len(body["events"]), send)
            return
        message["body"] = json.dumps({key: value for key, value in body.items() if key not in KEYS}).encode()

        async def receive_again() -> Any:
            return message

        await self.app(scope, receive_again, send)

    async def _accept(self, count: int, send: Any) -> None:
        status = self.statuses.pop(0) if self.statuses else 202
        error = {"error": {"code": "feedback_invalid", "message": "no"}}
        body = json.dumps({"accepted": count} if status == 202 else error).encode()
        headers = [*self.app.served.headers, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
