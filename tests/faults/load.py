"""Constant load from a process of its own: `python -m tests.faults.load URL OUTPUT [options]`, until its input ends.

Each of the connections asks at its own steady pace, whether or not the others are answered. What was asked, answered,
by which version and when is written to OUTPUT at the end, a JSON list a line; `Record` reads it.
"""

import argparse
import asyncio
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import requests

from serving.client import PolicyClient
from serving.errors import ServingError

OBSERVATIONS = np.random.default_rng(0).normal(0, 0.3, (64, 4)).astype(np.float32).round(3)
#: What policies with a fault fail at: `tests.serving.failing`. Its index is the next one.
FATAL_OBSERVATION = [0.777, 0.0, 0.0, 0.0]
#: A request that is still not answered then has failed.
GIVEN_UP_AFTER_S = 60.0


class Record(NamedTuple):
    """One request: when it began (Unix time), how long it took, and what came of it."""

    began: float
    took: float
    observation: int
    action: int | None
    version: int | None
    error: str | None

    @property
    def ended(self) -> float:
        return self.began + self.took


def body(index: int, size: int) -> bytes:
    """The request for an observation, filled with spaces to `size` bytes."""
    return json.dumps({"observation": observation(index)}).encode().ljust(size)


def observation(index: int) -> list[float]:
    return OBSERVATIONS[index].tolist() if index < len(OBSERVATIONS) else FATAL_OBSERVATION


class Load:
    """What the connections share: where to, how fast, how large, and what came back."""

    def __init__(self, url: str, rate: float, connections: int, large: int, size: int, fatal_every: int = 0) -> None:
        self.url, self.connections, self.large, self.size = url, connections, large, size
        self.interval = connections / rate
        self.asked, self.fatal_every = itertools.count(1), fatal_every
        self.records: list[Record] = []
        self.start, self._due = time.time(), dict[int, float]()
        self.stopped = threading.Event()

    def bytes_of(self, connection: int, index: int) -> bytes:
        return body(index, self.size if connection < self.large else 0)

    def next_index(self, connection: int, turn: int) -> int:
        """The observation to ask next: each `fatal_every`-th one over all connections is the fatal one."""
        if self.fatal_every and next(self.asked) % self.fatal_every == 0:
            return len(OBSERVATIONS)
        return (turn * 7 + connection) % len(OBSERVATIONS)

    def keep(self, began: float, index: int, answer: Any, error: str | None) -> None:
        took = time.time() - began
        action, version = answer if answer is not None else (None, None)
        self.records.append(Record(round(began, 4), round(took, 5), index, action, version, error))

    def wait_s(self, connection: int) -> float:
        """How long until a connection's next request is due. Turns missed while it waited are not made up for."""
        now = time.time()
        first = self.start + connection / self.connections * self.interval
        self._due[connection] = max(self._due.get(connection, first) + self.interval, now)
        return self._due[connection] - now


async def ask_aiohttp(load: Load, connection: int) -> None:
    timeout = aiohttp.ClientTimeout(total=GIVEN_UP_AFTER_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), timeout=timeout) as session:
        turn = 0
        while not load.stopped.is_set():
            turn += 1
            await asyncio.sleep(load.wait_s(connection))
            index = load.next_index(connection, turn)
            began, answer, error = time.time(), None, None
            try:
                async with session.post(load.url, data=load.bytes_of(connection, index)) as response:
                    text = await response.text()
                    if response.status == 200:
                        answer = json.loads(text)["action"], int(response.headers["X-Model-Version"])
                    else:
                        error = f"{response.status} {text[:120]}"
            except (aiohttp.ClientError, OSError, ValueError, KeyError) as failure:
                error = f"{type(failure).__name__}: {failure}"
            load.keep(began, index, answer, error)
            if error is not None:
                await asyncio.sleep(0.05)


def ask_requests(load: Load, connection: int) -> None:
    session = requests.Session()
    turn = 0
    while not load.stopped.is_set():
        turn += 1
        time.sleep(load.wait_s(connection))
        index = (turn * 7 + connection) % len(OBSERVATIONS)
        began, answer, error = time.time(), None, None
        try:
            response = session.post(load.url, data=load.bytes_of(connection, index), timeout=GIVEN_UP_AFTER_S)
            if response.status_code == 200:
                answer = response.json()["action"], int(response.headers["X-Model-Version"])
            else:
                error = f"{response.status_code} {response.text[:120]}"
        except (requests.RequestException, ValueError, KeyError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        load.keep(began, index, answer, error)


def ask_client(load: Load, connection: int) -> None:
    """As a control loop does: `PolicyClient` tries again what a replica that ends did not answer."""
    turn = 0
    with PolicyClient(load.url) as client:
        while not load.stopped.is_set():
            turn += 1
            time.sleep(load.wait_s(connection))
            index = load.next_index(connection, turn)
            began, answer, error = time.time(), None, None
            try:
                action = client.act(observation(index))
                answer = action, client.model_version
            except ServingError as failure:
                error = f"{type(failure).__name__}: {failure}"
            load.keep(began, index, answer, error)


async def run_aiohttp(load: Load) -> None:
    await asyncio.gather(*(ask_aiohttp(load, connection) for connection in range(load.connections)))


def run_threads(ask: Callable[[Load, int], None], load: Load) -> None:
    threads = [threading.Thread(target=ask, args=(load, connection)) for connection in range(load.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def stop_at_end_of_input(load: Load) -> None:
    """Whoever started this asks it to stop by closing its input, or by dying."""
    sys.stdin.read()
    load.stopped.set()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("output", type=Path)
    parser.add_argument("--client", choices=["aiohttp", "requests", "client"], default="aiohttp")
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--large", type=int, default=0, help="how many of the connections send --size bytes")
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--fatal-every", type=int, default=0, help="which requests hold the fatal observation")
    options = parser.parse_args()
    load = Load(options.url, options.rate, options.connections, options.large, options.size, options.fatal_every)
    threading.Thread(target=stop_at_end_of_input, args=(load,), daemon=True).start()
    if options.client == "aiohttp":
        asyncio.run(run_aiohttp(load))
    else:
        run_threads({"requests": ask_requests, "client": ask_client}[options.client], load)
    options.output.write_text("\n".join(map(json.dumps, load.records)))


if __name__ == "__main__":
    main()
