"""Clients that play short episodes through HTTP and report returns, which depend on the version that answered first."""

import json
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Self

import numpy as np

_TIMEOUT_S = 10


class Reporters:
    """Threads that each play one episode after another, until the context ends.

    Args:
        url: The server, or the server of an episode.
        returns: The mean return by version.
        number: The number of threads.
        pause_s: How long each thread pauses after an episode.
    """

    def __init__(
        self, url: str | Callable[[str], str], returns: dict[int, float], number: int = 4, pause_s: float = 0.0
    ) -> None:
        self._url = url if callable(url) else lambda _: url
        self._returns, self._pause_s = returns, pause_s
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._play, args=(seed,)) for seed in range(number)]
        self.episodes: Counter[int] = Counter()
        """The episodes by the version that answered first."""
        self.mixed: list[str] = []
        """Episodes that more than one version answered."""
        self.failed: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _play(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not self._ended.is_set():
            try:
                self._episode(uuid.uuid4().hex, rng)
            except OSError as error:
                self.failed.append(repr(error))
            time.sleep(self._pause_s)

    def _episode(self, name: str, rng: np.random.Generator) -> None:
        url, versions = self._url(name), []
        for step in range(2):
            headers = {"X-Episode-Id": name, "X-Episode-Step": str(step)}
            if versions:
                headers["X-Pin-Version"] = str(versions[0])
            answer = self._post(url, {"observation": [0.0] * 4}, headers)
            versions.append(int(answer.headers["X-Model-Version"]))
        total = self._returns[versions[0]] + 20 * rng.standard_normal()
        self._post(f"{url}/feedback", {"episode": name, "return": total, "length": 2, "done": "terminated"}, {})
        self.episodes[versions[0]] += 1
        if len(set(versions)) > 1:
            self.mixed.append(name)

    @staticmethod
    def _post(url: str, body: dict, headers: dict[str, str]):
        content = json.dumps(body).encode()
        request = urllib.request.Request(url, content, {"Content-Type": "application/json", **headers})
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            answer.read()
            return answer
