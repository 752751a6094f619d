"""The contenders, in the order of the table."""

import dataclasses
import json
import struct

from benchmarks.contender import Recipe, Way
from benchmarks.registry import Registered
from tests.workshop import free_port

OBSERVATION = [0.1, -0.2, 0.03, 0.4]
ONE = json.dumps({"observation": OBSERVATION}).encode()
INPUTS = json.dumps({"inputs": [OBSERVATION]}).encode()
TENSOR = {"name": "observations", "datatype": "FP32", "shape": [1, 4]}
BYTES = struct.pack("<4f", *OBSERVATION)

OURS, OURS_2, NOOP = "ours", "ours, 2 replicas", "no-op Serve, same settings"
OURS_DIRECT = "ours, direct port"
OURS_INVOCATIONS, OURS_V2 = "ours, /invocations", "ours, v2 with bytes"
TUTORIAL, MLFLOW, PLAIN = "tutorial, Serve's defaults", "mlflow models serve", "FastAPI + ONNX Runtime"


def many(batch: int) -> bytes:
    """Return a request for the actions of so many observations."""
    return json.dumps({"observations": [OBSERVATION] * batch}).encode()


def recipes(registered: Registered) -> list[Recipe]:
    """Return how to start each contender on the registered version, each on a port of its own."""
    return [
        asked_otherwise(ours(OURS, registered), registered),
        _direct(registered),
        ours(OURS_2, registered, "--num-replicas", "2"),
        _recipe(NOOP, "noop", ("benchmarks.noop",)),
        _recipe(TUTORIAL, "tutorial", ("benchmarks.tutorial", "--checkpoint", str(registered.checkpoint))),
        _mlflow(registered),
        _recipe(PLAIN, "plain", ("benchmarks.plain", "--graph", str(registered.graph))),
    ]


def _recipe(
    name: str, path: str, command: tuple[str, ...], environment: dict[str, str] | None = None, body: bytes = ONE
) -> Recipe:
    port = str(free_port())
    return Recipe(name, (*command, "--port", port), f"http://127.0.0.1:{port}/{path}", body, environment or {})


def ours(name: str, registered: Registered, *options: str) -> Recipe:
    """Return how to start our server, with more options of its command line."""
    command = ("serving", "run", "--model-uri", registered.pinned_uri, "--route-prefix", "/ours")
    return _recipe(name, "ours", (*command, *options), {"MLFLOW_TRACKING_URI": registered.tracking_uri})


def _direct(registered: Registered) -> Recipe:
    """Return how to start a server of ours that is asked without the proxy."""
    port = str(free_port())
    return dataclasses.replace(ours(OURS_DIRECT, registered, "--direct-port", port), url=f"http://127.0.0.1:{port}")


def asked_otherwise(recipe: Recipe, registered: Registered) -> Recipe:
    """Return a recipe of ours with the other protocols of HTTP to ask it in."""
    binary, json_length = v2_bytes()
    ways = (
        Way(OURS_INVOCATIONS, f"{recipe.url}/invocations", INPUTS),
        Way(OURS_V2, infer_url(recipe, registered), binary, json_length),
    )
    return dataclasses.replace(recipe, ways=ways)


def infer_url(recipe: Recipe, registered: Registered) -> str:
    """Return where ours answers the Open Inference Protocol."""
    model = registered.pinned_uri.removeprefix("models:/").split("/")[0]
    return f"{recipe.url}/v2/models/{model}/infer"


def v2_bytes() -> tuple[bytes, int]:
    """Return a request of the Open Inference Protocol with bytes for numbers, and how much of it is JSON."""
    tensor = {**TENSOR, "parameters": {"binary_data_size": len(BYTES)}}
    output = {"name": "action", "parameters": {"binary_data": True}}
    header = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    return header + BYTES, len(header)


def _mlflow(registered: Registered) -> Recipe:
    command = ("mlflow", "models", "serve", "--model-uri", registered.pinned_uri, "--env-manager", "local")
    return _recipe(MLFLOW, "invocations", command, {"MLFLOW_TRACKING_URI": registered.tracking_uri}, INPUTS)
