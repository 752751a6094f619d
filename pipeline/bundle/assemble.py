"""Writes the graph and the description of a policy beside its checkpoint, and loads them."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

from pipeline.bundle import equivalence
from pipeline.environments.make import Environment
from pipeline.evaluation import evaluation
from pipeline.evaluation.player import Player
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.export.onnx_graph import to_onnx
from pipeline.rllib.checkpoint_layout import load_filter, load_module
from serving.policy.bundle import FORMAT, GRAPH_FILE, POLICY_FILE, Bundle
from serving.policy.policy import Policy
from serving.policy.spaces import space_to_json

CHECKPOINT_DIRECTORY = "checkpoint"

#: Observations from rollouts on which graph and checkpoint are compared.
_COMPARED_OBSERVATIONS = 1000

_RECORDED_PACKAGES = ("mlflow", "numpy", "onnx", "onnxruntime", "gymnasium", "ray", "torch")


def assemble(directory: Path, environment: Environment, with_values: bool = False) -> None:  # noqa: FBT001, FBT002
    """Export a checkpoint to ONNX, and write the graph and its description if the graph computes the same.

    Args:
        directory: Contains `checkpoint/`; receives `model.onnx` and `policy.json`.
        environment: The environment that the policy was trained in.
        with_values: Whether the graph also returns value estimates.

    Raises:
        ExportFailed: If the module cannot be translated.
        ExportDiffers: If the graph and the checkpoint compute different outputs.
    """
    checkpoint = directory / CHECKPOINT_DIRECTORY
    module, observation_filter = load_module(checkpoint), load_filter(checkpoint)
    spaces = environment.observation_space, environment.action_space
    policy = ExportablePolicy(module, *spaces, observation_filter, with_values=with_values)
    graph = to_onnx(policy)
    player = Player.exportable(policy)
    observations = evaluation.observations(player, environment, _COMPARED_OBSERVATIONS, first_seed=0)
    equivalence.check_equal(policy, graph, observations)
    (directory / GRAPH_FILE).write_bytes(graph)
    (directory / POLICY_FILE).write_text(json.dumps(describe(environment, policy), indent=2))


def load(directory: Path) -> Policy:
    """Return the policy of an assembled directory, as serving loads it."""
    return Policy.load(Bundle.read(directory))


def describe(environment: Environment, policy: ExportablePolicy) -> dict[str, Any]:
    """Return the content of `policy.json`."""
    states = {name: {"shape": list(shape)} for name, shape in policy.state.shapes.items()}
    return {
        "format": FORMAT,
        "environment": {"id": environment.id, "kwargs": dict(environment.kwargs)},
        **({"wrappers": list(environment.wrappers)} if environment.wrappers else {}),
        "max_episode_steps": environment.max_episode_steps,
        "observation_space": space_to_json(environment.observation_space),
        "action_space": space_to_json(environment.action_space),
        "noise": [part._asdict() for part in policy.heads.noise],
        **({"state": states} if states else {}),
        "versions": {package: importlib.metadata.version(package) for package in _RECORDED_PACKAGES},
    }
