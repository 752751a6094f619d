"""`make fuzz`: sends malformed requests to a real server, and watches its answers, its process and its memory."""

import argparse
import collections
import http.client
import json
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil

from tests.serving.malformed import Request, corpus, fault_of, mutated_requests

MAX_GROWTH_MB = 16
"""How much the memory of a replica can grow after half of the requests, while allocators and counters settle."""


class Connection:
    """A connection to a real server that reconnects once per request."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._prefix, self._host, self._port = parts.path, parts.hostname or "", parts.port
        self._connection = self._connect()

    def ask(self, request: Request) -> tuple[int, bytes]:
        """Send a request. Raises OSError or HTTPException if the server breaks the connection twice."""
        path = self._prefix + quote(request.path, safe="/?=%{}")
        for last in (False, True):
            try:
                self._connection.request(request.method, path, request.body, dict(request.headers))
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                self._connection.close()
                self._connection = self._connect()
                if last:
                    raise
        raise AssertionError

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._host, self._port, timeout=20)


def memory(pid: int) -> float:
    """Return a process's memory in MB."""
    return psutil.Process(pid).memory_info().rss / 1e6


def run(url: str, requests: int, seed: int) -> int:
    """Send malformed requests to a server, print a summary, and return the number of faults."""
    connection = Connection(url)
    model = json.loads(connection.ask(Request("GET", "/model"))[1])
    pid = model["replica"]["pid"]
    source = mutated_requests(corpus(json.loads(connection.ask(Request("GET", "/openapi.json"))[1])), seed)
    counts: collections.Counter[int] = collections.Counter()
    faults: list[str] = []
    grown = []
    for number in range(requests):
        if number % max(1, requests // 10) == 0:
            grown.append(memory(pid))
        request = next(source)
        status, body = connection.ask(request)
        counts[status] += 1
        if fault := fault_of(request, status, body):
            faults.append(fault)
    grown.append(memory(pid))
    same = json.loads(connection.ask(Request("GET", "/model"))[1])["replica"]["pid"] == pid
    growth = grown[-1] - grown[len(grown) // 2]
    lines = [
        f"{requests} requests, seed {seed}; answers: {dict(sorted(counts.items()))}",
        f"memory of the replica, MB, at each tenth: {[round(each, 1) for each in grown]}",
        f"it grew by {growth:.1f} MB in the second half, {'as' if growth <= MAX_GROWTH_MB else 'MORE THAN'} allowed",
        f"{len(faults)} faults; the replica is {'the same process' if same else 'ANOTHER PROCESS: it crashed'}",
    ]
    sys.stdout.write("\n".join([*lines, *faults[:20], ""]))
    return len(faults) + (not same) + (growth > MAX_GROWTH_MB)


def main() -> int:
    """Fuzz the server at --url, or a new one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a server to fuzz; by default one is started")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.url:
        return min(run(options.url, options.requests, options.seed), 1)
    from tests.serving.commands.server import start_run
    from tests.serving.policies import EXPLORING_BUNDLE
    from tests.serving.store import Store

    with tempfile.TemporaryDirectory() as directory:
        store = Store(f"sqlite:///{directory}/mlflow.db", Path(directory))
        version = store.register("fuzzed", EXPLORING_BUNDLE)
        server = start_run(store, f"models:/fuzzed/{version}", "--cors-origin", "https://a.example.com")
        try:
            server.wait_up()
            faults = run(server.url, options.requests, options.seed)
        finally:
            server.process.terminate()
            server.process.wait()
            server.clean()
    return min(faults, 1)


if __name__ == "__main__":
    sys.exit(main())
