"""`make bench-batching`: from which policy on computing several requests at once pays.

The application alone, without Ray and proxy, so that the difference is the policy's and not hidden by theirs.
"""

import contextlib
import json
import multiprocessing
import time
from collections.abc import Iterator

import click
import numpy as np
import onnx
import requests
import uvicorn
from gymnasium import spaces
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.load import Load, load
from serving.arguments import Arguments
from serving.http.policy_app import PolicyApp
from serving.policy.bundle import Bundle
from serving.policy.policy import Policy
from serving.policy.spaces import space_to_json
from serving.registry.model_version import ModelVersion
from serving.replica.batching import Batching
from serving.replica.served_policy import ServedPolicy
from tests.workshop import free_port

SETTINGS: tuple[Batching, ...] = (Batching(1, 0.0), Batching(16, 0.0), Batching(16, 0.002), Batching(64, 0.005))
CONNECTIONS = (1, 16, 64)
ACTIONS = 6


def linear(*shape: int) -> NDArray[np.float32]:
    """Return weights of that shape, the same ones each time."""
    return (np.random.default_rng(0).standard_normal(shape) / 10).astype(np.float32)


def small_graph() -> onnx.ModelProto:
    """Return a graph for four numbers: one hidden layer of 64."""
    nodes = [
        helper.make_node("MatMul", ["observations", "w0"], ["hidden"]),
        helper.make_node("Tanh", ["hidden"], ["active"]),
        helper.make_node("MatMul", ["active", "w1"], ["logits"]),
    ]
    return _model(nodes, {"w0": linear(4, 64), "w1": linear(64, ACTIONS)}, (4,))


def wide_graph() -> onnx.ModelProto:
    """Return a graph for 64 numbers: three hidden layers of 1024, 8 MB of weights to go through for each batch."""
    sizes = (64, 1024, 1024, 1024, ACTIONS)
    names = ["observations", *(f"h{layer}" for layer in range(3)), "logits"]
    nodes = []
    for layer in range(4):
        nodes.append(helper.make_node("MatMul", [names[layer], f"w{layer}"], [f"m{layer}"]))
        nodes.append(helper.make_node("Tanh", [f"m{layer}"], [names[layer + 1]]))
    weights = {f"w{layer}": linear(sizes[layer], sizes[layer + 1]) for layer in range(4)}
    return _model(nodes, weights, (64,))


def image_graph() -> onnx.ModelProto:
    """Return a graph for four frames of 84 x 84: three convolutions and a layer of 512 (Mnih et al. 2015)."""
    nodes = [helper.make_node("Transpose", ["observations"], ["c0"], perm=[0, 3, 1, 2])]
    weights = {}
    for layer, (channels, filters, size, stride) in enumerate(((4, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1))):
        nodes.append(helper.make_node("Conv", [f"c{layer}", f"k{layer}"], [f"x{layer}"], strides=[stride, stride]))
        nodes.append(helper.make_node("Relu", [f"x{layer}"], [f"c{layer + 1}"]))
        weights[f"k{layer}"] = linear(filters, channels, size, size)
    nodes.append(helper.make_node("Flatten", ["c3"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "w0"], ["hidden"]))
    nodes.append(helper.make_node("MatMul", ["hidden", "w1"], ["logits"]))
    return _model(nodes, weights | {"w0": linear(7 * 7 * 64, 512), "w1": linear(512, ACTIONS)}, (84, 84, 4))


POLICIES = {
    "4 numbers, 64 units": (small_graph, (4,)),
    "64 numbers, 3 x 1024 units": (wide_graph, (64,)),
    "84 x 84 x 4 image, convolutions": (image_graph, (84, 84, 4)),
}


def _model(
    nodes: list[onnx.NodeProto], weights: dict[str, NDArray[np.float32]], shape: tuple[int, ...]
) -> onnx.ModelProto:
    nodes = [*nodes, helper.make_node("ArgMax", ["logits"], ["action"], axis=1, keepdims=0)]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observations", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bundle_of(name: str) -> Bundle:
    """Return the bundle of the policy of that name."""
    graph, shape = POLICIES[name]
    description = {
        "format": 1,
        "environment": {"id": name, "kwargs": {}},
        "observation_space": space_to_json(spaces.Box(-1, 1, shape)),
        "action_space": space_to_json(spaces.Discrete(ACTIONS)),
    }
    return Bundle(graph().SerializeToString(), json.dumps(description).encode())


def served(name: str) -> ServedPolicy:
    """Return the policy of that name, as if it came from a registry."""
    version = ModelVersion("models:/bench/1", "bench", 1, None, "None", {}, "nowhere")
    return ServedPolicy(Policy.load(bundle_of(name)), version)


def serve(name: str, batching: Batching, port: int) -> None:
    """Serve until terminated."""
    arguments = Arguments(max_batch_size=batching.max_batch_size, batch_wait_timeout_s=batching.wait_timeout_s)
    app = PolicyApp(served(name), arguments)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="off")


@contextlib.contextmanager
def running(name: str, batching: Batching) -> Iterator[str]:
    """Give the URL of a server in a process of its own."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(name, batching, port), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{port}/"
    try:
        while not _answers(url):
            if not process.is_alive():
                raise RuntimeError("the server ended")
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.join()


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}health", timeout=2).ok
    except requests.RequestException:
        return False


@click.command()
@click.option("--seconds", default=3, show_default=True, help="Of load per figure.")
def main(seconds: int) -> None:
    """Print requests/s and median latency of three policies by batching and connections."""
    columns = " | ".join(f"at {connections}: requests/s, p50 ms" for connections in CONNECTIONS)
    click.echo(f"| policy | max_batch_size, wait | {columns} |\n{'| --- ' * (len(CONNECTIONS) + 2)}|")
    for name, (_, shape) in POLICIES.items():
        body = json.dumps({"observation": np.full(shape, 0.5).tolist()}).encode()
        for batching in SETTINGS:
            with running(name, batching) as url:
                loads = [load(url, body, connections, seconds) for connections in CONNECTIONS]
            click.echo(_row(name, batching, loads))


def _row(name: str, batching: Batching, loads: list[Load]) -> str:
    setting = f"{batching.max_batch_size}, {batching.wait_timeout_s * 1e3:g} ms"
    figures = [f"{each.requests_per_s:,.0f}, {each.p50_ms:.2f}" for each in loads]
    return f"| {name} | {setting} | {' | '.join(figures)} |"


if __name__ == "__main__":
    main()
