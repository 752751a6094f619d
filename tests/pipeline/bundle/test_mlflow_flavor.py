"""A registered version is a self-contained MLflow model whose files are covered by digests."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pytest
from gymnasium import spaces

from pipeline.bundle import mlflow_flavor
from pipeline.bundle.checkpoint_files import digests
from pipeline.environments.nested_spaces import stack
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.tracking import run as tracking
from serving.integrity.statements import Subject
from serving.policy.policy import Policy
from serving.policy.tensors import OBSERVATIONS
from serving.registry.registry import fetch, resolve


@pytest.fixture
def registered(store, assembled, cartpole):  # noqa: ARG001  # the store is the current one
    """The number of a version of an untrained policy, and its module."""
    directory, module = assembled
    with tracking.run("train") as run_id:
        model_id = mlflow_flavor.log(directory, cartpole, run_id, step=0)
        tags = {"env_id": "CartPole-v1"}
        return mlflow_flavor.register(directory, model_id, "cartpole-ppo", tags, "a card"), module


def test_the_model_has_three_flavors_a_signature_and_an_example(registered):
    version, _ = registered
    model = mlflow.models.Model.load(f"models:/cartpole-ppo/{version}")
    assert set(model.flavors) == {"python_function", "onnx", "rllib"}
    assert model.flavors["python_function"]["loader_module"] == "mlflow.onnx"
    assert model.signature.inputs.inputs[0].shape == (-1, 4)
    assert model.signature.outputs.input_names() == ["action", "action_dist_inputs", "action_logp"]
    assert model.saved_input_example_info["type"] == "ndarray"


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2,)),
        spaces.Dict({"numbers": spaces.Box(-1, 1, (2,))}),
        spaces.Dict({"numbers": spaces.Box(-1, 1, (2,)), "others": spaces.Box(-1, 1, (2,))}),
    ],
)
def test_the_example_fits_the_signature(space):
    names = stack(space, [space.sample()], OBSERVATIONS)
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 2]) for name in names]
    action = onnx.helper.make_tensor_value_info("action", onnx.TensorProto.INT64, [None])
    graph = onnx.helper.make_graph([], "policy", inputs, [action])
    example = mlflow_flavor._example(space, graph)
    assert isinstance(example, dict) == mlflow_flavor._signature(graph).inputs.has_input_names()


def test_the_digests_of_the_files_that_serving_loads_are_tags(registered, tmp_path):
    version, _ = registered
    directory = mlflow.artifacts.download_artifacts(f"models:/cartpole-ppo/{version}", dst_path=str(tmp_path / "got"))
    tags = mlflow.MlflowClient().get_model_version("cartpole-ppo", str(version)).tags
    for file in ("model.onnx", "policy.json"):
        assert tags[f"sha256.{file}"] == hashlib.sha256(Path(directory, file).read_bytes()).hexdigest()
    assert tags["env_id"] == "CartPole-v1"
    assert Path(directory, "checkpoint/learner_group").is_dir()


def test_the_reference_of_observations_is_a_file_of_the_version_that_no_signature_covers(store, assembled, cartpole):
    directory, _ = assembled
    before = digests(directory)
    (directory / "reference.json").write_bytes(b"{}")
    assert digests(directory) == before
    with tracking.run("train") as run_id:
        model_id = mlflow_flavor.log(directory, cartpole, run_id, step=0)
        number = mlflow_flavor.register(directory, model_id, "cartpole-ppo", {}, "a card")
    version = resolve(f"models:/cartpole-ppo/{number}")
    assert version.digests == before | {"reference.json": hashlib.sha256(b"{}").hexdigest()}
    assert Subject.of(version).digests == before
    file = mlflow.artifacts.download_artifacts(f"{version.pinned_uri}/reference.json", dst_path=str(store / "got"))
    assert Path(file).read_bytes() == b"{}"


def test_serving_loads_the_policy_that_was_registered(registered, cartpole, tmp_path):
    version, module = registered
    observations = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    policy = Policy.load(fetch(resolve(f"models:/cartpole-ppo/{version}"), tmp_path / "cache"))
    trained = ExportablePolicy(module, cartpole.observation_space, cartpole.action_space)
    expected = trained.run({"observations": observations})["action"]
    np.testing.assert_array_equal(policy.act(observations), expected)


def test_mlflow_runs_the_model_without_this_repository_and_prints_no_warning(registered, store, cartpole):
    version, module = registered
    script = (
        "import mlflow, numpy, sys; m = mlflow.pyfunc.load_model(sys.argv[1]);"
        "print(m.predict(numpy.ones((2, 4), numpy.float32))['action'].tolist());"
        "assert not {'pipeline', 'serving', 'torch', 'ray'} & set(sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script, f"models:/cartpole-ppo/{version}"],
        cwd=store,
        env=environment | {"MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "appears in graph inputs" not in done.stderr
    trained = ExportablePolicy(module, cartpole.observation_space, cartpole.action_space)
    expected = trained.run({"observations": np.ones((2, 4), np.float32)})["action"]
    assert json.loads(done.stdout.splitlines()[-1]) == expected.tolist()
