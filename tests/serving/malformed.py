"""An endless stream of malformed requests for every route.

It mutates the examples in `/openapi.json`, so that every described route is fuzzed, and the requests in EXTRA.
"""

import gzip
import json
import random
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

Headers = tuple[tuple[str, str], ...]


class Request(NamedTuple):
    """An HTTP request."""

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
EPISODE: Headers = (("x-episode-id", "a"), ("x-episode-step", "3"), ("x-episode-reward", "1.5"))
EVENT = {
    "episode": "a",
    "rewards": [{"step": 3, "reward": 1.0}],
    "return": 1,
    "length": 4,
    "done": "terminated",
    "version": 1,
    "final_observation": [0, 0, 0, 0],
}
OTHERS = {"content_type": "np", "headers": None}
EXTRA = [
    Request("POST", "/invocations", b'{"inputs": [[0, 0, 0, 0]]}', JSON),
    Request(
        "POST", "/invocations", b'{"instances": [{"observations": [0, 0, 0, 0]}], "params": {"explore": true}}', JSON
    ),
    Request("POST", "/invocations", b'{"dataframe_records": [{"0": 0, "1": 0, "2": 0, "3": 0}]}', JSON),
    Request(
        "POST", "/invocations", b'{"dataframe_split": {"columns": ["a"], "data": [[1]]}, "params": {"a": 1}}', JSON
    ),
    Request("POST", "/invocations", b"a,b,c,d\n0,0,0,0\n", (("content-type", "text/csv"),)),
    Request("GET", "/ping"),
    Request("GET", "/version"),
    Request("GET", "/v2"),
    Request("GET", "/v2/health/live"),
    Request("GET", "/v2/models/fuzzed"),
    Request("GET", "/v2/models/fuzzed/versions/1/ready"),
    Request("POST", "/v2/models/fuzzed/infer", json.dumps({"id": "1", "inputs": [TENSOR]}).encode()),
    Request("POST", "/v2/models/fuzzed/infer", json.dumps({"inputs": [TENSOR], "parameters": OPTIONS}).encode()),
    Request("POST", "/v2/models/fuzzed/infer", json.dumps({"inputs": [TENSOR], "outputs": [BINARY_OUTPUT]}).encode()),
    Request(
        "POST",
        "/v2/models/fuzzed/infer",
        json.dumps({"inputs": [BINARY_TENSOR]}).ljust(100).encode() + bytes(16),
        BINARY,
    ),
    Request(
        "POST",
        "/v2/models/fuzzed/infer",
        json.dumps(
            {"inputs": [TENSOR], "outputs": [{"name": "action", "parameters": OTHERS}], "parameters": OTHERS}
        ).encode(),
    ),
    Request("POST", "/", gzip.compress(b'{"observation": [0, 0, 0, 0]}', mtime=0), (("content-encoding", "gzip"),)),
    Request(
        "POST", "/invocations", zlib.compress(b'{"inputs": [[0, 0, 0, 0]]}'), (*JSON, ("content-encoding", "deflate"))
    ),
    Request("OPTIONS", "/", b"", (("origin", "https://a.example.com"), ("access-control-request-method", "POST"))),
    Request("POST", "/", b'{"observation": [0, 0, 0, 0]}', (*JSON, *EPISODE)),
    Request("POST", "/v2/models/fuzzed/infer", json.dumps({"inputs": [TENSOR]}).encode(), EPISODE),
    Request("POST", "/feedback", json.dumps({"events": [EVENT, EVENT]}).encode(), JSON),
    Request("GET", "/play"),
]

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW")
VALUES: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        2**63,
        2**64,
        10**308,
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
        {"base64": "AA==", "dtype": "float32", "shape": [2**31] * 500},
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
    "origin",
    "x-episode-id",
    "x-episode-step",
    "x-episode-reward",
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
    "gzip",
    "deflate",
    "br",
    "gzip, gzip",
    "https://a.example.com",
)


def corpus(document: dict[str, Any]) -> list[Request]:
    """Return the valid requests that an API describes, and EXTRA."""
    return [*_described(document), *EXTRA]


def _described(document: dict[str, Any]) -> Iterator[Request]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            bodies = [json.dumps(each["value"]).encode() for each in content.get("examples", {}).values()]
            yield from (Request(method.upper(), path, body) for body in bodies or [b""])


def mutated_requests(valid: list[Request], seed: int) -> Iterator[Request]:
    """Yield mutations of valid requests; a seed determines them all."""
    chance = random.Random(seed)
    while True:
        request = chance.choice(valid)
        for _ in range(chance.choice((1, 1, 2, 3))):
            request = chance.choice(MUTATIONS)(request, chance)
        yield request


def _mutate_json(request: Request, chance: random.Random) -> Request:
    """Replace, remove, add or rename a value in the JSON of the body."""
    try:
        root = [json.loads(request.body)]
    except (ValueError, RecursionError):
        return _mutate_bytes(request, chance)
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
    return request._replace(body=json.dumps(root[0] if root else None).encode())


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


def _mutate_bytes(request: Request, chance: random.Random) -> Request:
    """Cut, overwrite or insert bytes."""
    body, place = request.body, chance.randrange(len(request.body) + 1)
    junk = chance.choice((chance.choice(BYTES), chance.randbytes(chance.randrange(8))))
    return request._replace(body=body[:place] + junk + body[place + chance.choice((0, 1, len(body))) :])


def _mutate_depth(request: Request, chance: random.Random) -> Request:
    """Nest the body or a number in lists or objects, near the depths at which parsers fail."""
    levels, body = chance.choice((1, 62, 63, 64, 65, 300, 990, 1030)), chance.choice((request.body, b"0"))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"observation":', b"}"), (b'{"inputs":[', b"]}")))
    return request._replace(body=opening * levels + body + closing * levels)


def _mutate_path(request: Request, chance: random.Random) -> Request:
    parts = request.path.split("/")
    place = chance.randrange(len(parts))
    parts[place : place + chance.randrange(2)] = [chance.choice(FRAGMENTS)]
    return request._replace(path="/" + "/".join(parts).lstrip("/"))


def _mutate_method(request: Request, chance: random.Random) -> Request:
    return request._replace(method=chance.choice(METHODS))


def _mutate_headers(request: Request, chance: random.Random) -> Request:
    return request._replace(headers=(*request.headers, (chance.choice(HEADERS), chance.choice(TEXTS))))


def _mutate_compression(request: Request, chance: random.Random) -> Request:
    """Compress the body, sometimes much more of it than a body may have, and sometimes cut it off."""
    coding, compress = chance.choice((("gzip", gzip.compress), ("deflate", zlib.compress)))
    content = compress(chance.choice((request.body, request.body, b" " * 2_000_000 + request.body)))
    body = content[: chance.choice((None, None, -1, 9))]
    return request._replace(body=body, headers=(*request.headers, ("content-encoding", coding)))


MUTATIONS = (
    *(_mutate_json,) * 4,
    _mutate_bytes,
    _mutate_depth,
    _mutate_path,
    _mutate_method,
    _mutate_headers,
    _mutate_compression,
)


def fault_of(request: Request, status: int, body: bytes) -> str | None:
    """Return what is wrong with a response, or None. A 4xx status and 503 are correct."""
    if status >= 500 and status != 503:
        return f"{status} to {request!r:.300}: {body[:200]!r}"
    if b"Traceback" in body or b'File "' in body:
        return f"a traceback to {request!r:.300}: {body[:500]!r}"
    return None


async def ask_app(app: Any, request: Request) -> tuple[int, bytes]:
    """Send a request through the ASGI interface."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": request.body}

    async def send(message: Any) -> None:
        sent.append(message)

    path, _, query = request.path.partition("?")
    headers = [(name.encode(), value.encode()) for name, value in request.headers]
    scope = {"type": "http", "method": request.method, "path": f"/p{path}", "root_path": "/p", "headers": headers}
    await app({**scope, "query_string": query.encode()}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
