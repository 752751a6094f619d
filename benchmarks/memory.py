"""`make bench-memory`: the memory of a server and of training by part, what imports cost, and what a replica adds.

USS is what only this process holds, and what ends with it. PSS adds its share of what processes share, so that the PSS
of all processes add up to what the machine needs.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import psutil

from benchmarks.contender import Contender
from benchmarks.load import load
from benchmarks.recipes import ours
from benchmarks.registry import Registered, registered
from tests.workshop import Workshop

MIB = 1 << 20
REPLICAS = (1, 2, 4)
LARGE_UNITS = 5000
"""The hidden units of a policy with 97 MiB of weights."""

Sizes = dict[str, tuple[int, float, float]]
"""The number of processes of each part, and the sums of their USS and PSS in MiB."""

PARTS = (
    ("replica", "ServeReplica"),
    ("environment runner", "EnvRunner"),
    ("Serve's controller", "ServeController"),
    ("Serve's fallback proxy", "ProxyActor"),
    ("Serve's manager of HAProxy", "HAProxyManager"),
    ("a replica's reader of a database registry", "serving.registry.access"),
    ("Ray's worker in reserve", "ray::IDLE"),
    ("HAProxy", "haproxy"),
    ("Ray: raylet", "raylet/raylet"),
    ("Ray: GCS", "gcs_server"),
    ("Ray: agents and monitors", "site-packages/ray/"),
    ("process for evaluation and export", "multiprocessing"),
)
"""What the command line of each part contains; the first that fits. Other processes are the command itself."""

REPLICA_IMPORTS = {
    "Python": "",
    "Ray": "import ray",
    "Ray Serve, without pandas": "import sys; sys.modules['pandas'] = None; from ray import serve",
    "pandas, which Ray Serve and MLflow import": "del sys.modules['pandas']; import pandas",
    "Gymnasium": "import gymnasium",
    "ONNX Runtime": "import onnxruntime",
    "this project": "import serving.app",
    "MLflow's client": "from mlflow import MlflowClient",
    "the policy": "from serving.policy.bundle import Bundle; from serving.policy.policy import Policy; "
    "policy = Policy.load(Bundle.read(BUNDLE))",
}
TRAINING_IMPORTS = {
    "Python": "",
    "Ray": "import ray",
    "torch": "import torch",
    "RLlib": "import ray.rllib.algorithms.ppo",
    "MLflow": "import mlflow",
    "this project": "import pipeline.training.run",
}


def measured(processes: Iterable[psutil.Process]) -> Sizes:
    """Return the memory of these processes by part, in the order of the largest."""
    found: dict[str, list[Any]] = defaultdict(list)
    for process in processes:
        try:
            line, info = " ".join(process.cmdline()), process.memory_full_info()
        except psutil.Error:  # it has ended
            continue
        part = next((part for part, text in PARTS if text in line), "the command")
        found[part].append(info)
    sizes = {
        part: (len(infos), sum(each.uss for each in infos) / MIB, sum(each.pss for each in infos) / MIB)
        for part, infos in found.items()
    }
    return dict(sorted(sizes.items(), key=lambda item: -item[1][2]))


def of_imports(steps: dict[str, str], bundle: Path) -> dict[str, float]:
    """Return how much the USS of a new process grows with each import, in MiB; they share modules."""
    code = (
        "import gc, json, psutil\nBUNDLE, steps = json.loads(input())\nspace, sizes, last = {'BUNDLE': BUNDLE}, {}, 0\n"
        "for name, step in steps.items():\n    exec(step, space)\n    gc.collect()\n"
        "    uss = psutil.Process().memory_full_info().uss\n    sizes[name], last = (uss - last) / 2**20, uss\n"
        "print(json.dumps(sizes))"
    )
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        input=json.dumps([str(bundle), steps]),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
        check=True,
    )
    sizes: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return sizes


def of_server(version: Registered, replicas: int) -> Sizes:
    """Return the memory of a server with so many replicas, after load."""
    recipe = ours(f"{replicas} replicas", version, "--num-replicas", str(replicas))
    with Contender(recipe) as server:
        load(recipe.url, recipe.body, 16 * replicas, 3)
        return measured(server.processes())


def of_training(environment: dict[str, str], *options: str) -> Sizes:
    """Return the most memory that each part of a training took, sampled twice a second."""
    most: Sizes = {}
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as directory:
        shop = Workshop(Path(directory), {"RAY_TMPDIR": directory, **environment})
        process = shop.start(sys.executable, "-m", "pipeline", "train", *options)
        try:
            while process.poll() is None:
                for part, sizes in measured(shop.processes()).items():
                    most[part] = max(most.get(part, sizes), sizes, key=lambda each: each[2])
                time.sleep(0.5)
        finally:
            shop.end()
        if process.returncode:
            raise RuntimeError(shop.output()[-3000:])
    return dict(sorted(most.items(), key=lambda item: -item[1][2]))


def of_large_policy(directory: Path) -> tuple[float, float]:
    """Return the size of a graph with large weights, and how much its policy adds to a process, in MiB."""
    import numpy as np
    import onnx
    from gymnasium import spaces
    from onnx import TensorProto, helper, numpy_helper

    from serving.policy.spaces import space_to_json

    names, nodes, weights = ["observations", "h0", "h1", "logits"], [], []
    for layer, shape in enumerate(((4, LARGE_UNITS), (LARGE_UNITS, LARGE_UNITS), (LARGE_UNITS, 2))):
        weights.append(numpy_helper.from_array(np.full(shape, 0.01, np.float32), f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [names[layer], f"w{layer}"], [names[layer + 1]]))
    nodes.append(helper.make_node("ArgMax", ["logits"], ["action"], axis=1, keepdims=0))
    observations = helper.make_tensor_value_info("observations", TensorProto.FLOAT, ["batch", 4])
    action = helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"])
    graph = helper.make_graph(nodes, "policy", [observations], [action], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    description = {
        "format": 1,
        "environment": {"id": "CartPole-v1", "kwargs": {}},
        "observation_space": space_to_json(spaces.Box(-1, 1, (4,))),
        "action_space": space_to_json(spaces.Discrete(2)),
    }
    onnx.save(model, str(directory / "model.onnx"))
    (directory / "policy.json").write_text(json.dumps(description))
    steps = {"the rest": "; ".join(filter(None, REPLICA_IMPORTS.values())).rpartition("; policy =")[0]}
    added = of_imports({**steps, "policy": "policy = Policy.load(Bundle.read(BUNDLE))"}, directory)["policy"]
    return (directory / "model.onnx").stat().st_size / MIB, added


def table(title: str, sizes: Sizes) -> str:
    """Return the parts as Markdown."""
    lines = [f"| {title} | processes | USS, MiB | PSS, MiB |", "| --- | --- | --- | --- |"]
    lines += [f"| {part} | {count} | {uss:.0f} | {pss:.0f} |" for part, (count, uss, pss) in sizes.items()]
    total = [sum(column) for column in zip(*sizes.values(), strict=True)]
    return "\n".join([*lines, f"| all | {total[0]} | {total[1]:.0f} | {total[2]:.0f} |", ""])


def imports_table(title: str, sizes: dict[str, float]) -> str:
    """Return what each import added as Markdown."""
    rows = [f"| {name} | {size:.0f} |" for name, size in sizes.items()]
    return "\n".join([f"| {title} | adds, MiB |", "| --- | --- |", *rows, f"| all | {sum(sizes.values()):.0f} |", ""])


@click.command()
@click.option("--train-steps", default=20_000, show_default=True, help="Environment steps of the measured trainings.")
def main(train_steps: int) -> None:
    """Print the tables, each as soon as it is measured."""
    with tempfile.TemporaryDirectory() as directory, registered(Path(directory)) as version:
        bundle = version.graph.parent
        click.echo(imports_table("a replica's process, import after import", of_imports(REPLICA_IMPORTS, bundle)))
        totals = {}
        for replicas in REPLICAS:
            sizes = of_server(version, replicas)
            totals[replicas] = sum(pss for _, _, pss in sizes.values())
            click.echo(table(f"server, {replicas} replica{'s' * (replicas > 1)}", sizes))
        few, many = REPLICAS[0], REPLICAS[-1]
        click.echo(f"Each further replica adds {(totals[many] - totals[few]) / (many - few):.0f} MiB (PSS).\n")
        large = Path(directory, "large")
        large.mkdir()
        file, added = of_large_policy(large)
        click.echo(f"A policy whose graph has {file:.0f} MiB adds {added:.0f} MiB to a replica.\n")
        click.echo(imports_table("training, import after import", of_imports(TRAINING_IMPORTS, bundle)))
        for runners in (0, 2):
            options = ("--num-env-runners", str(runners), "--max-env-steps", str(train_steps))
            sizes = of_training({"MLFLOW_TRACKING_URI": version.tracking_uri}, *options)
            click.echo(table(f"training, {runners} environment runners", sizes))


if __name__ == "__main__":
    main()
