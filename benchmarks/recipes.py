"""The contenders, in the order of the table."""

import json

from benchmarks.contender import Recipe
from benchmarks.registry import Registered
from tests.workshop import free_port

OBSERVATION = [0.1, -0.2, 0.03, 0.4]
ONE = json.dumps({"observation": OBSERVATION}).encode()
INPUTS = json.dumps({"inputs": [OBSERVATION]}).encode()

OURS, OURS_2, NOOP = "ours", "ours, 2 replicas", "no-op Serve, same settings"
OURS_INVOCATIONS = "ours, /invocations"
TUTORIAL, MLFLOW, PLAIN = "tutorial, Serve's defaults", "mlflow models serve", "FastAPI + ONNX Runtime"


def many(batch: int) -> bytes:
    """Return a request for the actions of so many observations."""
    return json.dumps({"observations": [OBSERVATION] * batch}).encode()


def recipes(registered: Registered) -> list[Recipe]:
    """Return how to start each contender on the registered version, each on a port of its own."""
    return [
        ours(OURS, registered),
        ours(OURS_2, registered, "--num-replicas", "2"),
        ours(OURS_INVOCATIONS, registered, path="ours/invocations", body=INPUTS),
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


def ours(name: str, registered: Registered, *options: str, path: str = "ours", body: bytes = ONE) -> Recipe:
    """Return how to start our server, with more options of its command line."""
    command = ("serving", "run", "--model-uri", registered.pinned_uri, "--route-prefix", "/ours")
    return _recipe(name, path, (*command, *options), {"MLFLOW_TRACKING_URI": registered.tracking_uri}, body)


def _mlflow(registered: Registered) -> Recipe:
    command = ("mlflow", "models", "serve", "--model-uri", registered.pinned_uri, "--env-manager", "local")
    return _recipe(MLFLOW, "invocations", command, {"MLFLOW_TRACKING_URI": registered.tracking_uri}, INPUTS)
