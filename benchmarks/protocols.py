"""`make bench-protocols`: what the ways to ask for an action cost, on one server, in interleaved rounds.

HTTP is asked by the load generator of `bench-serving`. gRPC is asked from Python, and so is the native route once more,
for those two to be compared: a client in Python takes several times what wrk takes.
"""

import asyncio
import functools
import json
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from benchmarks.contender import Contender, Recipe
from benchmarks.load import load
from benchmarks.recipes import BYTES, OBSERVATION, ONE, OURS, TENSOR, infer_url, ours, v2_bytes
from benchmarks.registry import Registered, registered
from tests.workshop import free_port

Ask = Callable[[], Awaitable[object]]
RPC = "/inference.GRPCInferenceService/ModelInfer"


@click.command()
@click.option("--rounds", default=5, show_default=True, help="How often each is measured.")
@click.option("--seconds", default=3, show_default=True, help="How long, each time.")
def main(rounds: int, seconds: int) -> None:
    """Measure each protocol and print a table: medians of the rounds."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory() as directory, registered(Path(directory)) as version:
        grpc_port = free_port()
        recipe = ours(OURS, version, "--grpc-port", str(grpc_port))
        with Contender(recipe):
            measured = _measure(recipe, version, grpc_port, rounds, seconds)
    click.echo("| protocol | requests/s at 1 connection | at 16 |\n| --- | --- | --- |")
    for name, rates in measured.items():
        one, sixteen = (statistics.median(rates[connections]) for connections in (1, 16))
        click.echo(f"| {name} | {one:,.0f} | {sixteen:,.0f} |")


def _measure(
    recipe: Recipe, version: Registered, grpc_port: int, rounds: int, seconds: int
) -> dict[str, dict[int, list[float]]]:
    rates: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    model = version.pinned_uri.removeprefix("models:/").split("/")[0]
    infer = infer_url(recipe, version)
    binary, json_length = v2_bytes()
    for _ in range(rounds):
        for connections in (1, 16):
            for name, url, body, length in (
                ("native, wrk", recipe.url, ONE, None),
                ("v2, JSON, wrk", infer, _json(), None),
                ("v2, bytes, wrk", infer, binary, json_length),
            ):
                rates[name][connections].append(load(url, body, connections, seconds, length).requests_per_s)
            for name, measure in (("native, Python", _over_http), ("v2, gRPC, Python", _over_grpc)):
                target = recipe.url if measure is _over_http else f"127.0.0.1:{grpc_port}"
                rates[name][connections].append(asyncio.run(measure(target, model, connections, seconds)))
    return rates


def _json() -> bytes:
    return json.dumps({"inputs": [{**TENSOR, "data": OBSERVATION}], "outputs": [{"name": "action"}]}).encode()


async def _over_http(url: str, _: str, connections: int, seconds: float) -> float:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask() -> None:
            async with session.post(url, data=ONE, headers={"Content-Type": "application/json"}) as answer:
                answer.raise_for_status()
                await answer.read()

        return await _rate([ask] * connections, seconds)


async def _over_grpc(address: str, model: str, connections: int, seconds: float) -> float:
    import grpc

    from serving.protocols.open_inference.protos import inference_pb2 as pb

    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[BYTES])
    request.inputs.add(**TENSOR)
    request.outputs.add(name="action")
    content = request.SerializeToString()
    apart = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(address, options=apart) for _ in range(connections)]
    rate = await _rate([functools.partial(channel.unary_unary(RPC), content) for channel in channels], seconds)
    for channel in channels:
        await channel.close()
    return rate


async def _rate(asks: list[Ask], seconds: float) -> float:
    """Return requests/s of clients that each wait for an answer before they ask again."""
    answered, end = 0, time.perf_counter() + seconds

    async def go_on(ask: Ask) -> None:
        nonlocal answered
        while time.perf_counter() < end:
            await ask()
            answered += 1

    await asyncio.gather(*map(go_on, asks))
    return answered / seconds


if __name__ == "__main__":
    main()
