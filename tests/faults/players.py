"""Clients that play episodes through HTTP, send a request again until it is answered, and keep what was answered."""

import http.client
import json
import threading
import uuid
from collections.abc import Iterator
from typing import NamedTuple, Self
from urllib.parse import urlsplit

ATTEMPTS = 100
TIMEOUT_S = 10


class Answered(NamedTuple):
    """A decision that a client got an answer for."""

    episode: str
    step: int
    action: int
    version: int
    pinned: int | None
    """The version that the client asked for."""
    attempts: int


class Players:
    """Threads that each play one episode after another, until the context ends.

    Args:
        url: the server.
        number: the number of threads.
        length: the number of steps of an episode.
        pin: whether an episode asks for the version that it began with.
    """

    def __init__(self, url: str, number: int = 16, length: int = 20, *, pin: bool = False) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "", parts.port, parts.path
        self._length, self._pin = length, pin
        self._ended = threading.Event()
        self._answered: list[list[Answered]] = [[] for _ in range(number)]
        self._failed: list[str] = []
        self._threads = [threading.Thread(target=self._play, args=(found,)) for found in self._answered]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> list[Answered]:
        """Every decision that was answered."""
        return [each for found in self._answered for each in found]

    @property
    def failed(self) -> list[str]:
        """The reasons of the requests that no attempt answered."""
        return self._failed

    def _play(self, found: list[Answered]) -> None:
        connection = self._connect()
        while not self._ended.is_set():
            found.extend(self._episode(connection, uuid.uuid4().hex))
        connection.close()

    def _episode(self, connection: http.client.HTTPConnection, episode: str) -> Iterator[Answered]:
        version: int | None = None
        body = json.dumps({"observation": [0.0, 0.0, 0.0, 0.0], "explore": True})
        for step in range(self._length):
            headers = {"X-Episode-Id": episode, "X-Episode-Step": str(step), "Content-Type": "application/json"}
            if step:
                headers["X-Episode-Reward"] = "1.0"
            if self._pin and version is not None:
                headers["X-Pin-Version"] = str(version)
            answer = self._ask(connection, body, headers)
            if answer is None:
                return
            action, answered_by, attempts = answer
            yield Answered(episode, step, action, answered_by, version if self._pin else None, attempts)
            version = answered_by

    def _ask(
        self, connection: http.client.HTTPConnection, body: str, headers: dict[str, str]
    ) -> tuple[int, int, int] | None:
        """Return the action, the version and the number of attempts; None if no attempt is answered."""
        reason = ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                connection.request("POST", self._path, body, headers)
                response = connection.getresponse()
                content = json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = repr(error)
                connection.close()
                continue
            if response.status == http.client.OK:
                return content["action"], int(response.headers["X-Model-Version"]), attempt
            reason = f"{response.status} {content}"
        self._failed.append(reason)
        return None

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
