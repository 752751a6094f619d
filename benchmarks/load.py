"""Load on one URL: wrk where it is installed, else aiohttp, which is several times slower itself."""

import asyncio
import json
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).with_name("load.lua")
TIMEOUT_S = 10


@dataclass(frozen=True)
class Load:
    """What one round of load measured. Latencies are those of single requests."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


def generator() -> str:
    """Return the name of the load generator that this machine has."""
    return "wrk" if shutil.which("wrk") else "aiohttp"


def load(
    url: str,
    body: bytes,
    connections: int,
    seconds: float,
    json_length: int | None = None,
    *,
    threads: int = 1,
    headers: Mapping[str, str] = {},
) -> Load:
    """Send `body` over so many connections, each waiting for its answer before it asks again.

    Args:
        url: where to.
        body: JSON.
        connections: how many.
        seconds: how long.
        json_length: how much of the body is JSON, where bytes follow it (Open Inference Protocol).
        threads: how many of wrk's threads, or processes of aiohttp, share the connections.
        headers: further headers of each request.
    """
    headers = {"Content-Type": "application/json", **headers}
    if json_length is not None:
        headers["Inference-Header-Content-Length"] = str(json_length)
    if generator() == "wrk":
        return _wrk(url, body, connections, seconds, headers, threads)
    shares = [connections // threads + (number < connections % threads) for number in range(threads)]
    with multiprocessing.get_context("spawn").Pool(threads) as pool:
        latencies, failed = zip(
            *pool.starmap(_run_aiohttp, [(url, body, share, seconds, headers) for share in shares]), strict=True
        )
    p50, p99 = np.percentile(np.concatenate(latencies), [50, 99]) * 1e3
    return Load(sum(map(len, latencies)) / seconds, float(p50), float(p99), sum(failed))


def _wrk(url: str, body: bytes, connections: int, seconds: float, headers: dict[str, str], threads: int) -> Load:
    # wrk takes whole seconds only.
    options = [f"-t{threads}", f"-c{connections}", f"-d{max(1, round(seconds))}s", f"--timeout={TIMEOUT_S}s"]
    options += ["-s", str(SCRIPT)]
    options += [argument for name, value in headers.items() for argument in ("-H", f"{name}: {value}")]
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        environment = {**os.environ, "BENCH_BODY": file.name}
        done = subprocess.run(["wrk", *options, url], env=environment, capture_output=True, text=True, check=True)  # noqa: S607
    return Load(**json.loads(done.stdout.splitlines()[-1]))


Sent = tuple[list[float], int]
"""The latencies of a process's requests in seconds, and how many failed."""


def _run_aiohttp(url: str, body: bytes, connections: int, seconds: float, headers: dict[str, str]) -> Sent:
    return asyncio.run(_aiohttp(url, body, connections, seconds, headers))


async def _aiohttp(url: str, body: bytes, connections: int, seconds: float, headers: dict[str, str]) -> Sent:
    import aiohttp

    latencies: list[float] = []
    failed = 0
    end = time.perf_counter() + seconds

    async def ask(session: aiohttp.ClientSession) -> None:
        nonlocal failed
        while (start := time.perf_counter()) < end:
            async with session.post(url, data=body, headers=headers) as answer:
                await answer.read()
            latencies.append(time.perf_counter() - start)
            failed += answer.status != 200  # noqa: PLR2004

    timeout = aiohttp.ClientTimeout(TIMEOUT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await asyncio.gather(*(ask(session) for _ in range(connections)))
    return latencies, failed
