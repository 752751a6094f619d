"""A registered version is a standard MLflow model, self-contained and vouched for."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from pipeline.bundle import assemble as bundle
from pipeline.bundle.errors import ExportDiffers
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.tracking import run as tracking
from serving.policy.policy import Policy
from serving.registry.registry import fetch, resolve


@pytest.fixture
def registered(store, build_module, cartpole):
    """Version 1 of `cartpole-ppo`, of a policy that never learned."""
    directory = store / "assembled"
    module = build_module(cartpole)
    module.save_to_path(directory / "checkpoint/learner_group/learner/rl_module/default_policy")
    bundle.assemble(directory, cartpole)
    with tracking.run("train") as run_id:
        logged = bundle.log(directory, cartpole, run_id, step=0)
        return bundle.register(logged, "cartpole-ppo", {"env_id": "CartPole-v1"}, "a card"), module


def test_it_has_three_flavors_a_signature_and_an_example(registered):
    version, _ = registered
    model = mlflow.models.Model.load(f"models:/cartpole-ppo/{version}")
    assert set(model.flavors) == {"python_function", "onnx", "rllib"}
    assert model.flavors["python_function"]["loader_module"] == "mlflow.onnx"
    assert model.signature.inputs.inputs[0].shape == (-1, 4)
    assert model.signature.outputs.input_names() == ["action", "action_dist_inputs", "action_logp"]
    assert model.saved_input_example_info["type"] == "ndarray"


def test_its_digests_are_tags_from_the_moment_it_exists(registered, tmp_path):
    version, _ = registered
    directory = mlflow.artifacts.download_artifacts(f"models:/cartpole-ppo/{version}", dst_path=str(tmp_path / "got"))
    tags = mlflow.MlflowClient().get_model_version("cartpole-ppo", str(version)).tags
    for file in ("model.onnx", "policy.json"):
        assert tags[f"sha256.{file}"] == hashlib.sha256(Path(directory, file).read_bytes()).hexdigest()
    assert tags["env_id"] == "CartPole-v1"
    assert json.loads(Path(directory, "policy.json").read_text())["environment"] == {"id": "CartPole-v1", "kwargs": {}}


def test_actions_before_saving_equal_actions_after_loading_as_serving_loads(registered, cartpole, tmp_path):
    version, module = registered
    observations = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    policy = Policy.load(fetch(resolve(f"models:/cartpole-ppo/{version}"), tmp_path / "cache"))
    trained = ExportablePolicy(module, cartpole.observation_space, cartpole.action_space)
    expected = trained.run({"observations": observations})["action"]
    np.testing.assert_array_equal(policy.act(observations), expected)


def test_mlflow_runs_it_where_this_repository_is_not_installed(registered, store):
    version, _ = registered
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
    assert json.loads(done.stdout.splitlines()[-1]) in ([0, 0], [1, 1])


def test_nothing_is_registered_when_graph_and_checkpoint_differ(store, build_module, cartpole, monkeypatch):
    directory = store / "assembled"
    build_module(cartpole).save_to_path(directory / "checkpoint/learner_group/learner/rl_module/default_policy")
    other = ExportablePolicy(build_module(cartpole), cartpole.observation_space, cartpole.action_space)
    next(iter(other.parameters())).data.mul_(2)
    graph = bundle.export.to_onnx(other)
    monkeypatch.setattr(bundle.export, "to_onnx", lambda *_: graph)
    with pytest.raises(ExportDiffers, match="Nothing was registered"):
        bundle.assemble(directory, cartpole)
    assert not (directory / "model.onnx").exists()
