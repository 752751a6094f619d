"""The MLflow flavor `rllib`: writes an assembled bundle as an MLflow model, and registers it.

The model has three flavors. `python_function` and `onnx` are MLflow's own, for the graph without optional inputs;
`rllib` is defined here, for the checkpoint that training continues from.
"""

import hashlib
import importlib.metadata
import shutil
import sys
from pathlib import Path
from typing import Any

import mlflow.onnx
import numpy as np
import onnx
from gymnasium import spaces
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import Schema, TensorSpec

from pipeline.bundle.assemble import CHECKPOINT_DIRECTORY
from pipeline.bundle.checkpoint_files import digests, manifest_of
from pipeline.environments.make import Environment
from pipeline.environments.nested_spaces import stack
from pipeline.export.onnx_graph import without_optional_inputs
from pipeline.reference.reference import REFERENCE_FILE
from serving.integrity.statements import CHECKPOINT_MANIFEST
from serving.policy.bundle import GRAPH_FILE, POLICY_FILE
from serving.policy.tensors import OBSERVATIONS
from serving.registry.model_version import DIGEST_TAG
from serving.registry.registry import versions_of

#: The graph that MLflow's own flavors run. ONNX Runtime prints a warning for each optional input of a graph, and MLflow
#: cannot feed them.
GREEDY_GRAPH_FILE = "greedy.onnx"

#: The packages that MLflow's own flavors need to run the graph.
_PYFUNC_PACKAGES = ("mlflow", "numpy", "onnx", "onnxruntime")


def log(directory: Path, environment: Environment, run_id: str, step: int) -> str:
    """Write an assembled bundle to the run's artifact store as an MLflow model, and return the model's id."""
    model_id: str = Model.log(
        artifact_path=None,
        name="policy",
        flavor=sys.modules[__name__],
        run_id=run_id,
        step=step,
        directory=directory,
        environment=environment,
    ).model_id
    return model_id


def register(directory: Path, model_id: str, name: str, tags: dict[str, str], description: str) -> int:
    """Register a bundle that `log` wrote as a version of a registered model, and return the version's number.

    The call that creates the version also sets its digests and tags, so that no version exists without them. A version
    that an earlier call created, whose answer was lost, is returned instead of another one.
    """
    client, source = mlflow.MlflowClient(), f"models:/{model_id}"
    version = _version_of(source, name)
    if version is None:
        tags = {f"{DIGEST_TAG}{file}": digest for file, digest in _digests(directory).items()} | tags
        try:
            version = mlflow.register_model(source, name, tags=tags)
        except MlflowException as error:
            if error.error_code != "PERMISSION_DENIED":
                raise
            # MLflow first tries to create the model, which an account may not do that may create its versions.
            version = _version_of(source, name)
            version = version or client.create_model_version(name, source, tags=tags, model_id=model_id)
    client.update_model_version(name, version.version, description)
    return int(version.version)


def _digests(directory: Path) -> dict[str, str]:
    """Return the digests for a version's tags: those that a signature covers, and that of reference.json."""
    reference = directory / REFERENCE_FILE
    found = {REFERENCE_FILE: hashlib.sha256(reference.read_bytes()).hexdigest()} if reference.exists() else {}
    return digests(directory) | found


def _version_of(source: str, name: str) -> Any | None:
    return next((version for version in versions_of(name) if version.source == source), None)


def save_model(path: str, mlflow_model: Model, directory: Path, environment: Environment) -> None:
    """Write the MLflow model to a directory. `mlflow.models.Model.log` calls this function.

    Args:
        path: The directory to create.
        mlflow_model: Receives the flavors.
        directory: An assembled bundle, and its reference.json if there is one.
        environment: The environment that the policy was trained in.
    """
    mlflow_model.add_flavor(
        "rllib", checkpoint=CHECKPOINT_DIRECTORY, policy=POLICY_FILE, ray_version=importlib.metadata.version("ray")
    )
    graph = without_optional_inputs((directory / GRAPH_FILE).read_bytes())
    mlflow.onnx.save_model(
        graph,
        path,
        mlflow_model=mlflow_model,
        signature=_signature(graph.graph),
        input_example=_example(environment.observation_space, graph.graph),
        metadata={"env_id": environment.id},
        pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in _PYFUNC_PACKAGES],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    # mlflow.onnx always writes model.onnx, which is the name of the graph that serving loads.
    Path(path, GRAPH_FILE).rename(Path(path, GREEDY_GRAPH_FILE))
    for flavor in ("onnx", "python_function"):
        mlflow_model.flavors[flavor]["data"] = GREEDY_GRAPH_FILE
    mlflow_model.save(str(Path(path, MLMODEL_FILE_NAME)))
    for file in (GRAPH_FILE, POLICY_FILE):
        shutil.copyfile(directory / file, Path(path, file))
    if (directory / REFERENCE_FILE).exists():
        shutil.copyfile(directory / REFERENCE_FILE, Path(path, REFERENCE_FILE))
    shutil.copytree(directory / CHECKPOINT_DIRECTORY, Path(path, CHECKPOINT_DIRECTORY))
    Path(path, CHECKPOINT_MANIFEST).write_bytes(manifest_of(directory / CHECKPOINT_DIRECTORY))


def _example(space: spaces.Space[Any], graph: onnx.GraphProto) -> Any:
    """Return a batch of one observation: arrays by name, or a bare array if the signature's only tensor has no name."""
    tensors = stack(space, [space.sample()], OBSERVATIONS)
    return tensors if len(graph.input) > 1 else tensors[graph.input[0].name]


def _signature(graph: onnx.GraphProto) -> ModelSignature:
    # MLflow's clients may send a bare array if the only input tensor has no name.
    names = [None] if len(graph.input) == 1 else [value.name for value in graph.input]
    return ModelSignature(
        inputs=Schema([TensorSpec(*_tensor(value), name=name) for value, name in zip(graph.input, names, strict=True)]),
        outputs=Schema([TensorSpec(*_tensor(value), name=value.name) for value in graph.output]),
    )


def _tensor(value: onnx.ValueInfoProto) -> tuple[np.dtype[Any], tuple[int, ...]]:
    tensor = value.type.tensor_type
    shape = tuple(dimension.dim_value or -1 for dimension in tensor.shape.dim)
    return onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape
