"""Compressed bodies on every route that takes one."""

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from serving.arguments import Arguments
from serving.http import content_encoding
from serving.http.policy_app import PolicyApp
from tests.serving.asking import ask, served

ONE = b'{"observation": [0, 0, 1, 0]}'
TENSOR = {"name": "observations", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 1, 0]}
ROUTES = {
    "/": ONE,
    "/invocations": b'{"inputs": [[0, 0, 1, 0]]}',
    "/v2/models/cartpole-ppo/infer": json.dumps({"inputs": [TENSOR]}).encode(),
}
BOMB = zlib.compress(b" " * 10_000_000, 9)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("X-GZIP", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
def test_a_compressed_body_is_decompressed(app: PolicyApp, path: str, coding: str, compress: Any) -> None:
    body = ROUTES[path]
    headers = {"Content-Type": "application/json"}
    plain = ask(app, "POST", path, body, headers=headers)
    answer = ask(app, "POST", path, compress(body), headers={**headers, "Content-Encoding": coding})
    assert (answer.status, answer.body) == (200, plain.body)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip"])
def test_another_coding_is_unsupported(app: PolicyApp, path: str, coding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    answer = ask(app, "POST", path, gzip.compress(ONE, mtime=0), headers=headers)
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, deflate")
    assert f'the content encoding is \\"{coding}\\", expected gzip, deflate or none' in answer.body.decode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (ONE, "Error -3 while decompressing data: incorrect header check"),
        (gzip.compress(ONE, mtime=0)[:-1], "it is cut off"),
        (gzip.compress(ONE, mtime=0) + b"more", "bytes follow its end"),
    ],
)
def test_a_body_that_is_not_compressed_as_declared_is_rejected(app: PolicyApp, body: bytes, reason: str) -> None:
    answer = ask(app, body=body, headers={"Content-Encoding": "gzip"})
    assert (answer.status, answer.json()["error"]["code"]) == (400, "compression_invalid")
    assert answer.json()["error"]["message"] == f"the body is not valid gzip: {reason}"


def test_nothing_beyond_the_limit_is_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    decompressobj, produced = zlib.decompressobj, []

    class Counting:
        """A decompressor that notes how much it has produced."""

        def __init__(self, wbits: int) -> None:
            self._decompressor = decompressobj(wbits)

        def decompress(self, body: bytes, limit: int) -> bytes:
            produced.append(self._decompressor.decompress(body, limit))
            return produced[-1]

    app = PolicyApp(served(), Arguments(max_body_bytes=20_000))
    assert len(BOMB) < 20_000
    monkeypatch.setattr(content_encoding.zlib, "decompressobj", Counting)
    answer = ask(app, body=BOMB, headers={"Content-Encoding": "deflate"})
    assert (answer.status, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert sum(map(len, produced)) == 20_001


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_tritonclient_compresses_its_requests(serve_http: Any, algorithm: str) -> None:
    client = triton.InferenceServerClient(serve_http(PolicyApp(served())).removeprefix("http://"))
    observations = triton.InferInput("observations", [1, 4], "FP32")
    observations.set_data_from_numpy(np.array([[0, 0, 1, 0]], np.float32))
    answer = client.infer("cartpole-ppo", [observations], request_compression_algorithm=algorithm)
    assert answer.as_numpy("action").tolist() == [1]
