"""The MLflow flavor `rllib`: what a registered version contains, and how it is written.

The version is a standard MLflow model of three flavors. `python_function` and `onnx` are MLflow's own, for the graph
that serves; `rllib` is ours, for the checkpoint that trains on.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import mlflow.onnx
import numpy as np
import onnx
import onnxruntime
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from ray.rllib.core.rl_module.torch import TorchRLModule

from pipeline.bundle import equivalence as proof
from pipeline.environments.make import Environment
from pipeline.environments.nested_spaces import stack
from pipeline.evaluation import evaluation
from pipeline.export import exportable_policy as export
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.export.observation_filter import FrozenFilter
from pipeline.verification.rllib_reference import MODULE_IN_CHECKPOINT
from serving.policy.policy import GRAPH_FILE, POLICY_FILE, Bundle, Policy
from serving.policy.spaces import OBSERVATIONS, space_to_json

CHECKPOINT_DIRECTORY = "checkpoint"

#: Observations from rollouts that graph and checkpoint must agree on.
_PROOF_OBSERVATIONS = 1000

#: What MLflow's own flavors need to run the graph.
_PYFUNC_PACKAGES = ("mlflow", "numpy", "onnx", "onnxruntime")

_RECORDED_PACKAGES = (*_PYFUNC_PACKAGES, "gymnasium", "ray", "torch")


@dataclass(frozen=True)
class Logged:
    """A bundle in the artifact store, not yet in the registry."""

    model_id: str
    digests: dict[str, str]


def restore(checkpoint: Path, environment: Environment, *, with_values: bool = False) -> ExportablePolicy:
    """The policy of a checkpoint, in torch."""
    return ExportablePolicy(
        TorchRLModule.from_checkpoint(checkpoint / MODULE_IN_CHECKPOINT),
        environment.observation_space,
        environment.action_space,
        FrozenFilter.of_checkpoint(checkpoint),
        with_values=with_values,
    )


def assemble(directory: Path, environment: Environment, with_values: bool = False) -> None:  # noqa: FBT001, FBT002
    """Complete a directory that holds a checkpoint with the graph and its description, and prove the graph right.

    Args:
        directory: Holds `checkpoint/`; receives `model.onnx` and `policy.json`.
        environment: What the policy was trained on.
        with_values: Whether the graph estimates values, too.

    Raises:
        ExportFailed: If the module cannot be translated.
        ExportDiffers: If the graph and the checkpoint disagree.
    """
    reference = restore(directory / CHECKPOINT_DIRECTORY, environment, with_values=with_values)
    graph = export.to_onnx(reference)
    observations = evaluation.observations(reference.player, environment, _PROOF_OBSERVATIONS, first_seed=0)
    proof.prove_equal(reference, graph, observations)
    (directory / GRAPH_FILE).write_bytes(graph)
    (directory / POLICY_FILE).write_text(json.dumps(describe(environment, reference), indent=2))


def load(directory: Path) -> Policy:
    """The policy of an assembled directory, as serving loads it."""
    return Policy.load(Bundle.read(directory))


def describe(environment: Environment, policy: ExportablePolicy) -> dict[str, Any]:
    """The content of `policy.json`."""
    states = {name: {"shape": list(shape)} for name, shape in policy.state.shapes.items()}
    return {
        "format": 1,
        "environment": {"id": environment.id, "kwargs": dict(environment.kwargs)},
        **({"wrappers": list(environment.wrappers)} if environment.wrappers else {}),
        "observation_space": space_to_json(environment.observation_space),
        "action_space": space_to_json(environment.action_space),
        "noise": [dataclasses.asdict(each) for each in policy.noise],
        **({"state": states} if states else {}),
        "versions": {package: importlib.metadata.version(package) for package in _RECORDED_PACKAGES},
    }


def log(directory: Path, environment: Environment, run_id: str, step: int) -> Logged:
    """Write an assembled bundle to the run's artifact store as an MLflow model, unregistered."""
    info = Model.log(
        artifact_path=None,
        name="policy",
        flavor=sys.modules[__name__],
        run_id=run_id,
        step=step,
        directory=directory,
        environment=environment,
    )
    return Logged(info.model_id, {name: _sha256(directory / name) for name in (GRAPH_FILE, POLICY_FILE)})


def register(logged: Logged, name: str, tags: dict[str, str], description: str) -> int:
    """Make a logged bundle a version of a registered model; its digests and tags are set in the same call.

    Returns:
        The number of the version.
    """
    digest_tags = {f"sha256.{file}": digest for file, digest in logged.digests.items()}
    version = mlflow.register_model(f"models:/{logged.model_id}", name, tags=digest_tags | tags)
    mlflow.MlflowClient().update_model_version(name, version.version, description)
    return int(version.version)


def save_model(path: str, mlflow_model: Model, directory: Path, environment: Environment) -> None:
    """Write the MLflow model (`mlflow.models.Model.log` calls this).

    Args:
        path: Where to.
        mlflow_model: Receives the flavors.
        directory: An assembled bundle.
        environment: What the policy was trained on.
    """
    space = environment.observation_space
    example = stack(space, [space.sample()], OBSERVATIONS)
    mlflow_model.add_flavor(
        "rllib", checkpoint=CHECKPOINT_DIRECTORY, policy=POLICY_FILE, ray_version=importlib.metadata.version("ray")
    )
    onnxruntime.set_default_logger_severity(3)  # MLflow runs the example, and it warns of every input with a default
    # MLflow would look through all that is installed, whether versions are there that were just read from it: 0.7 s.
    with mock.patch("mlflow.utils.environment.warn_dependency_requirement_mismatches"):
        mlflow.onnx.save_model(
            onnx.load(directory / GRAPH_FILE),
            path,
            mlflow_model=mlflow_model,
            signature=_signature(directory / GRAPH_FILE),
            input_example=example.get(OBSERVATIONS, example),
            metadata={"env_id": environment.id},
            pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in _PYFUNC_PACKAGES],
            onnx_execution_providers=["CPUExecutionProvider"],
            save_as_external_data=False,
        )
    for file in (GRAPH_FILE, POLICY_FILE):
        shutil.copyfile(directory / file, Path(path, file))
    shutil.copytree(directory / CHECKPOINT_DIRECTORY, Path(path, CHECKPOINT_DIRECTORY))


def _signature(graph_file: Path) -> ModelSignature:
    graph = onnx.load(graph_file).graph
    optional = {initializer.name for initializer in graph.initializer}
    inputs = [value for value in graph.input if value.name not in optional]
    # One unnamed input tensor, so that MLflow's clients may send a bare array.
    names = [None] if len(inputs) == 1 else [value.name for value in inputs]
    return ModelSignature(
        inputs=Schema([TensorSpec(*_tensor(value), name=name) for value, name in zip(inputs, names, strict=True)]),
        outputs=Schema([TensorSpec(*_tensor(value), name=value.name) for value in graph.output]),
    )


def _tensor(value: onnx.ValueInfoProto) -> tuple[np.dtype[Any], tuple[int, ...]]:
    tensor = value.type.tensor_type
    shape = tuple(dimension.dim_value or -1 for dimension in tensor.shape.dim)
    return onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
