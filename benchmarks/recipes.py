"""The contenders, in the order of the table."""

import json

from benchmarks.contender import Recipe
from benchmarks.registry import Registered
from tests.workshop import free_port

OBSERVATION = [0.1, -0.2, 0.03, 0.4]
ONE = json.dumps({"observation": OBSERVATION}).encode()

OURS, OURS_2, NOOP = "ours", "ours, 2 replicas", "no-op Serve, same settings"
TUTORIAL, MLFLOW, PLAIN = "tutorial, Serve's defaults", "mlflow models serve", "FastAPI + ONNX Runtime"


def many(batch: int) -> bytes:
    """Return a request for the actions of so many observations."""
    return json.dumps({"observations": [OBSERVATION] * batch}).encode()


def recipes(registered: Registered) -> list[Recipe]:
    """Return how to start each contender on the registered version, each on a port of its own."""
    return [
        ours(OURS, registered, 1),
        ours(OURS_2, registered, 2),
        _recipe(NOOP, "noop", ("benchmarks.noop",)),
        _recipe(TUTORIAL, "tutorial", ("benchmarks.tutorial", "--checkpoint", str(registered.checkpoint))),
        _mlflow(registered),
        _recipe(PLAIN, "plain", ("benchmarks.plain", "--graph", str(registered.graph))),
    ]


def _recipe(name: str, path: str, command: tuple[str, ...], environment: dict[str, str] | None = None) -> Recipe:
    port = str(free_port())
    return Recipe(name, (*command, "--port", port), f"http://127.0.0.1:{port}/{path}", ONE, environment or {})


def ours(name: str, registered: Registered, replicas: int, *options: str) -> Recipe:
    """Return how to start our server, with more options of its command line."""
    command = ("serving", "run", "--model-uri", registered.pinned_uri, "--route-prefix", "/ours")
    environment = {"MLFLOW_TRACKING_URI": registered.tracking_uri}
    return _recipe(name, "ours", (*command, "--num-replicas", str(replicas), *options), environment)


def _mlflow(registered: Registered) -> Recipe:
    command = ("mlflow", "models", "serve", "--model-uri", registered.pinned_uri, "--env-manager", "local")
    started = _recipe(MLFLOW, "invocations", command, {"MLFLOW_TRACKING_URI": registered.tracking_uri})
    return Recipe(
        started.name,
        started.command,
        started.url,
        json.dumps({"inputs": [OBSERVATION]}).encode(),
        started.environment,
    )
