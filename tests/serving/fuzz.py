"""Malformed requests without end, for every route; `make fuzz` sends them to a real server.

What to mutate comes from `/openapi.json`, so that a route that is described is fuzzed, and from EXTRA.
"""

import argparse
import collections
import http.client
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import psutil

Headers = tuple[tuple[str, str], ...]


class Shot(NamedTuple):
    """A request."""

    method: str
    path: str
    body: bytes = b""
    headers: Headers = ()


JSON: Headers = (("content-type", "application/json"),)
BINARY: Headers = (("inference-header-content-length", "100"), ("content-type", "application/octet-stream"))
TENSOR = {"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0]}
BINARY_TENSOR = {"name": "observations", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}
BINARY_OUTPUT = {"name": "action", "parameters": {"binary_data": True}}
OPTIONS = {"explore": True, "seed": 3}
EXTRA = [
    Shot("POST", "/invocations", b'{"inputs": [[0, 0, 0, 0]]}', JSON),
    Shot("POST", "/invocations", b'{"instances": [{"observations": [0, 0, 0, 0]}], "params": {"explore": true}}', JSON),
    Shot("POST", "/invocations", b'{"dataframe_records": [{"0": 0, "1": 0, "2": 0, "3": 0}]}', JSON),
    Shot("POST", "/invocations", b'{"dataframe_split": {"columns": ["a"], "data": [[1]]}, "params": {"a": 1}}', JSON),
    Shot("POST", "/invocations", b"a,b,c,d\n0,0,0,0\n", (("content-type", "text/csv"),)),
    Shot("GET", "/ping"),
    Shot("GET", "/version"),
    Shot("GET", "/v2"),
    Shot("GET", "/v2/health/live"),
    Shot("GET", "/v2/models/fuzzed"),
    Shot("GET", "/v2/models/fuzzed/versions/1/ready"),
    Shot("POST", "/v2/models/fuzzed/infer", json.dumps({"id": "1", "inputs": [TENSOR]}).encode()),
    Shot("POST", "/v2/models/fuzzed/infer", json.dumps({"inputs": [TENSOR], "parameters": OPTIONS}).encode()),
    Shot("POST", "/v2/models/fuzzed/infer", json.dumps({"inputs": [TENSOR], "outputs": [BINARY_OUTPUT]}).encode()),
    Shot(
        "POST",
        "/v2/models/fuzzed/infer",
        json.dumps({"inputs": [BINARY_TENSOR]}).ljust(100).encode() + bytes(16),
        BINARY,
    ),
    Shot("GET", "/play"),
]
MAX_GROWTH_MB = 16
"""What a replica may still grow by once it has seen half of the requests: allocators and counters settle late."""

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW")
VALUES: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        2**63,
        2**64,
        10**400,
        1e308,
        -0.0,
        float("nan"),
        float("inf"),
        "",
        "x",
        "NaN",
        "\ud800",
        "\0",
    ),
    *(
        [],
        {},
        [[]],
        [None],
        {"": None},
        [[[[[[0]]]]]],
        [0] * 1000,
        {"base64": "AA==", "dtype": "float32", "shape": [2**31, 0]},
    ),
    *({"base64": 5, "dtype": [], "shape": {}}, {"base64": "", "dtype": "uint8", "shape": [0] * 70}, "A" * 5000),
]
BYTES = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"[" * 5000,
    b"{" * 100,
    b'{"a":' * 2000,
    b'"',
    b"NaN",
    b"1e999999",
    b"\xef\xbb\xbf{}",
    b"-" * 99,
)
FRAGMENTS = ("..", "%00", "\u00e9", "versions", "99", "v2", "models", "infer", "//", "x" * 300, "?a=b", "{}", "docs")
HEADERS = (
    "inference-header-content-length",
    "content-type",
    "authorization",
    "accept",
    "content-encoding",
    "x-request-id",
)
TEXTS = (
    "",
    "0",
    "-1",
    "99999999999999999999",
    "nonsense",
    "application/json",
    "text/csv",
    "application/octet-stream",
    "Bearer x",
)


def corpus(document: dict[str, Any]) -> list[Shot]:
    """Return the valid requests of an API, by its own description, and those of protocols that may be there."""
    return [*_described(document), *EXTRA]


def _described(document: dict[str, Any]) -> Iterator[Shot]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            bodies = [json.dumps(each["value"]).encode() for each in content.get("examples", {}).values()]
            yield from (Shot(method.upper(), path, body) for body in bodies or [b""])


def shots(valid: list[Shot], seed: int) -> Iterator[Shot]:
    """Yield mutations of valid requests, the same for the same seed."""
    chance = random.Random(seed)
    while True:
        shot = chance.choice(valid)
        for _ in range(chance.choice((1, 1, 2, 3))):
            shot = chance.choice(MUTATIONS)(shot, chance)
        yield shot


def _mutate_json(shot: Shot, chance: random.Random) -> Shot:
    """Replace, remove, add or rename something in the body's JSON."""
    try:
        root = [json.loads(shot.body)]
    except (ValueError, RecursionError):
        return _mutate_bytes(shot, chance)
    at: Any = root
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = chance.choice(keys)
        if not isinstance(at[key], dict | list) or not at[key] or chance.random() < 0.3:
            _change(at, key, chance)
            break
        at = at[key]
    return shot._replace(body=json.dumps(root[0] if root else None).encode())


def _change(at: Any, key: Any, chance: random.Random) -> None:
    kind = chance.randrange(4)
    if kind == 0:
        del at[key]
    elif kind == 1 and isinstance(at, dict):
        at[chance.choice(("observation", "seed", "state", "id", "\u00e9", "x" * 99))] = at.pop(key)
    elif kind == 2 and isinstance(at, list):
        at.extend([at[key]] * chance.choice((1, 3, 300)))
    else:
        at[key] = chance.choice(VALUES)


def _mutate_bytes(shot: Shot, chance: random.Random) -> Shot:
    """Cut, overwrite or insert bytes."""
    body, place = shot.body, chance.randrange(len(shot.body) + 1)
    junk = chance.choice((chance.choice(BYTES), chance.randbytes(chance.randrange(8))))
    return shot._replace(body=body[:place] + junk + body[place + chance.choice((0, 1, len(body))) :])


def _mutate_depth(shot: Shot, chance: random.Random) -> Shot:
    """Put the body, or a number, into lists or objects, near to where limits and parsers give up."""
    levels, body = chance.choice((1, 62, 63, 64, 65, 300, 990, 1030)), chance.choice((shot.body, b"0"))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"observation":', b"}"), (b'{"inputs":[', b"]}")))
    return shot._replace(body=opening * levels + body + closing * levels)


def _mutate_path(shot: Shot, chance: random.Random) -> Shot:
    parts = shot.path.split("/")
    place = chance.randrange(len(parts))
    parts[place : place + chance.randrange(2)] = [chance.choice(FRAGMENTS)]
    return shot._replace(path="/" + "/".join(parts).lstrip("/"))


def _mutate_method(shot: Shot, chance: random.Random) -> Shot:
    return shot._replace(method=chance.choice(METHODS))


def _mutate_headers(shot: Shot, chance: random.Random) -> Shot:
    return shot._replace(headers=(*shot.headers, (chance.choice(HEADERS), chance.choice(TEXTS))))


MUTATIONS = (
    *(_mutate_json,) * 4,
    _mutate_bytes,
    _mutate_depth,
    _mutate_path,
    _mutate_method,
    _mutate_headers,
)


def fault_of(shot: Shot, status: int, body: bytes) -> str | None:
    """Return what is wrong with an answer; a refusal, or 503, is right."""
    if status >= 500 and status != 503:
        return f"{status} to {shot!r:.300}: {body[:200]!r}"
    if b"Traceback" in body or b'File "' in body:
        return f"a traceback to {shot!r:.300}: {body[:500]!r}"
    return None


async def ask_app(app: Any, shot: Shot) -> tuple[int, bytes]:
    """Send a request through the ASGI interface."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": shot.body}

    async def send(message: Any) -> None:
        sent.append(message)

    path, _, query = shot.path.partition("?")
    headers = [(name.encode(), value.encode()) for name, value in shot.headers]
    scope = {"type": "http", "method": shot.method, "path": f"/p{path}", "root_path": "/p", "headers": headers}
    await app({**scope, "query_string": query.encode()}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


class Wire:
    """A connection to a real server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._prefix, self._host, self._port = parts.path, parts.hostname or "", parts.port
        self._connection = self._connect()

    def ask(self, shot: Shot) -> tuple[int, bytes]:
        """Send a request. Raises OSError and HTTPException where the server broke the connection twice."""
        path = self._prefix + quote(shot.path, safe="/?=%{}")
        for last in (False, True):
            try:
                self._connection.request(shot.method, path, shot.body, dict(shot.headers))
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
    """Send malformed requests to a server, print what came back, and return how many answers were wrong."""
    wire = Wire(url)
    model = json.loads(wire.ask(Shot("GET", "/model"))[1])
    pid = model["replica"]["pid"]
    source = shots(corpus(json.loads(wire.ask(Shot("GET", "/openapi.json"))[1])), seed)
    counts: collections.Counter[int] = collections.Counter()
    faults: list[str] = []
    grown = []
    for number in range(requests):
        if number % max(1, requests // 10) == 0:
            grown.append(memory(pid))
        shot = next(source)
        status, body = wire.ask(shot)
        counts[status] += 1
        if fault := fault_of(shot, status, body):
            faults.append(fault)
    grown.append(memory(pid))
    same = json.loads(wire.ask(Shot("GET", "/model"))[1])["replica"]["pid"] == pid
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
    """Fuzz the server at --url, or one of our own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a server to fuzz; by default one is started")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.url:
        return min(run(options.url, options.requests, options.seed), 1)
    from tests.serving.test_run import Server

    from tests.serving.policies import EXPLORING_BUNDLE, Store
    from tests.workshop import free_port

    with tempfile.TemporaryDirectory() as directory:
        store = Store(f"sqlite:///{directory}/mlflow.db", Path(directory))
        version, port = store.register("fuzzed", EXPLORING_BUNDLE), free_port()
        command = [
            sys.executable,
            "-m",
            "serving",
            "run",
            "--model-uri",
            f"models:/fuzzed/{version}",
            "--port",
            str(port),
        ]
        environment = {"MLFLOW_TRACKING_URI": store.uri}
        server = Server([*command, "--cache-dir", f"{directory}/cache"], environment, int(port), "/fuzzed")
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
