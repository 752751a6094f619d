"""The parts of `benchmarks.cores`: replicas, environment runners, and an image policy on CPU and GPU."""

import base64
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.batching import bundle_of
from benchmarks.contender import Contender, Recipe
from benchmarks.load import load
from benchmarks.recipes import ONE
from serving.policy.bundle import Bundle
from serving.policy.errors import ProviderUnavailable
from serving.policy.execution import CPU, CUDA, check_provider
from tests.workshop import free_port

COUNTS = (1, 2, 4, 8)
CONNECTIONS = (1, 16, 64, 256)
ENV_IDS = ("CartPole-v1", "Acrobot-v1")
BATCHES = (1, 16, 64, 256)
RUNNERS = (0, 1, 2, 4, 8)
IMAGE = "84 x 84 x 4 image, convolutions"

Results = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Scope:
    """How much to measure, and where."""

    seconds: int
    rounds: int
    cores: int
    bundle: Path
    directory: Path
    """For a registry and what servers write."""

    @property
    def uri(self) -> str:
        """The registry: a SQLite database."""
        return f"sqlite:///{self.directory}/mlflow.db"

    @property
    def load_threads(self) -> int:
        """Threads or processes of the load generator: a quarter of the cores."""
        return max(1, self.cores // 4)


def register(scope: Scope, name: str, bundle: Bundle) -> None:
    """Register a bundle as version 1 of a model."""
    from mlflow import MlflowClient

    source = scope.directory / name
    source.mkdir()
    (source / "model.onnx").write_bytes(bundle.graph)
    (source / "policy.json").write_bytes(bundle.policy)
    client = MlflowClient(scope.uri)
    client.create_registered_model(name)
    tags = {f"sha256.{file}": digest for file, digest in bundle.digests.items()}
    client.create_model_version(name, source.as_uri(), tags=tags)


# Serving: replicas of this server beside workers of FastAPI.


def serving(scope: Scope) -> Results:
    """Return requests/s and latencies by server, number of its processes, and connections."""
    register(scope, "cartpole", Bundle.read(scope.bundle))
    found: Results = {"this server": {}, "FastAPI": {}}
    for count in (each for each in COUNTS if each <= scope.cores):
        recipes = {
            "this server": _ours(scope, "cartpole", ONE, "--num-replicas", str(count)),
            "FastAPI": _recipe("plain", "benchmarks.plain", "--workers", str(count), *_graph(scope)),
        }
        with contextlib.ExitStack() as running:
            contenders = {}
            for name, recipe in recipes.items():
                click.echo(f"  {name}, {count} ...", err=True)
                contenders[name] = running.enter_context(Contender(recipe))
                running.callback(contenders[name].thaw)
                contenders[name].freeze()
            for _ in range(scope.rounds):
                for name, contender in contenders.items():
                    loads = found[name].setdefault(str(count), {})
                    _measure(contender, scope, loads)
    return _medians(found)


def _graph(scope: Scope) -> tuple[str, str]:
    return "--graph", str((scope.bundle / "model.onnx").absolute())


def _recipe(path: str, *command: str, body: bytes = ONE, environment: dict[str, str] | None = None) -> Recipe:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}/{path}"
    return Recipe(path, (*command, "--port", port), url, body, environment or {})


def _ours(scope: Scope, model: str, body: bytes, *options: str) -> Recipe:
    command = ("serving", "run", "--model-uri", f"models:/{model}/1", "--route-prefix", "/ours", *options)
    return _recipe("ours", *command, body=body, environment={"MLFLOW_TRACKING_URI": scope.uri})


def _measure(contender: Contender, scope: Scope, loads: dict[str, list[Any]]) -> None:
    """Append a round of load at each number of connections, and freeze the server afterwards."""
    contender.thaw()
    load(contender.recipe.url, contender.recipe.body, 4, 1)
    for connections in CONNECTIONS:
        threads = min(scope.load_threads, connections)
        one = load(contender.recipe.url, contender.recipe.body, connections, scope.seconds, threads=threads)
        loads.setdefault(str(connections), []).append(dataclasses.asdict(one))
    contender.freeze()


def _medians(found: Results) -> Results:
    """Return the tree of results with the median of each list of loads, and the most requests that failed."""
    if isinstance(found, list):
        columns = {key: [each[key] for each in found] for key in found[0]}
        return {key: max(each) if key == "failed" else statistics.median(each) for key, each in columns.items()}
    return {key: _medians(each) for key, each in found.items()}


# Training: environment steps per second by the number of environment runners.


def training(scope: Scope) -> Results:
    """Return environment steps per second by environment and number of environment runners."""
    found: Results = {env_id: {} for env_id in ENV_IDS}
    counts = [each for each in RUNNERS if each <= scope.cores]
    for _ in range(scope.rounds):
        for env_id in ENV_IDS:
            for count in counts:
                click.echo(f"  {env_id}, {count} environment runners ...", err=True)
                command = [sys.executable, "-m", "benchmarks.training_scale", "--one", env_id, str(count)]
                # Ray's sockets need a short path.
                with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as directory:
                    environment = {**os.environ, "RAY_TMPDIR": directory}
                    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
                found[env_id].setdefault(str(count), []).append({"steps_per_s": float(output.splitlines()[-1])})
    return _medians(found)


# An image policy, computed alone and served, on each execution provider of this machine.


def image(scope: Scope) -> Results:
    """Return observations/s and latencies of a policy of images by execution provider."""
    register(scope, "images", bundle_of(IMAGE))
    # As PolicyClient sends images.
    image = {"base64": _base64(84 * 84 * 4), "dtype": "float32", "shape": [84, 84, 4]}
    body = json.dumps({"observation": image}).encode()
    found: Results = {}
    for provider, why in providers().items():
        if why is not None:
            found[provider] = {"error": why}
            continue
        click.echo(f"  the policy on {provider} ...", err=True)
        found[provider] = {"alone": alone(provider, scope), "served": {}}
        click.echo(f"  a server on {provider} ...", err=True)
        with Contender(_ours(scope, "images", body, "--execution-provider", provider)) as server:
            for _ in range(scope.rounds):
                _measure(server, scope, found[provider]["served"])
        found[provider]["served"] = _medians(found[provider]["served"])
    return found


def providers() -> dict[str, str | None]:
    """Return why each execution provider cannot be used here, None if it can."""
    try:
        check_provider(CUDA)
    except ProviderUnavailable as error:
        return {CPU: None, CUDA: error.needed}
    return {CPU: None, CUDA: None}


def alone(provider: str, scope: Scope) -> Results:
    """Return observations/s and latencies of the policy by batch, in a process of its own: a GPU keeps its memory."""
    directory = scope.directory / "images"
    threads = str(scope.cores if provider == CPU else 1)
    command = [sys.executable, "-c", ALONE, str(directory), provider, threads, str(scope.seconds), *map(str, BATCHES)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(output)  # type: ignore[no-any-return]


ALONE = """if True:
    import json, sys, time
    import numpy as np
    from serving.policy.bundle import Bundle
    from serving.policy.policy import Policy

    directory, provider, threads, seconds, *batches = sys.argv[1:]
    policy = Policy.load(Bundle.read(directory), num_threads=int(threads), provider=provider)
    found = {}
    for batch in map(int, batches):
        observations = np.random.default_rng(0).random((batch, *policy.observation_space.shape), np.float32)
        policy.act(observations)
        times, end = [], time.perf_counter() + float(seconds)
        while time.perf_counter() < end:
            start = time.perf_counter()
            policy.act(observations)
            times.append(time.perf_counter() - start)
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        found[batch] = {"observations_per_s": batch * len(times) / sum(times), "p50_ms": p50, "p99_ms": p99}
    print(json.dumps(found))
"""


def _base64(numbers: int) -> str:
    return base64.b64encode(np.random.default_rng(0).random(numbers, np.float32).tobytes()).decode()
