"""The exported graph computes what RLlib computes, for any batch size, with optional noise and state."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ray.rllib.utils.spaces.space_utils import unsquash_action

from pipeline.bundle.equivalence import check_equal
from pipeline.export.errors import ExportFailed
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.export.onnx_graph import to_onnx, without_optional_inputs
from serving.policy.noise import Noise


@pytest.fixture(scope="module")
def cartpole_policy(build_policy, cartpole):
    return build_policy(cartpole)


@pytest.fixture(scope="module")
def cartpole_graph(cartpole_policy):
    return to_onnx(cartpole_policy)


@pytest.fixture
def observations():
    return {"observations": np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)}


def test_the_exporter_prints_nothing(cartpole_policy, capfd):
    to_onnx(cartpole_policy)
    assert capfd.readouterr() == ("", "")


def test_the_graph_computes_the_same_as_the_policy(cartpole_policy, cartpole_graph, observations):
    check_equal(cartpole_policy, cartpole_graph, observations)


@pytest.mark.parametrize("batch", [1, 7, 1024])
def test_the_batch_size_is_free(cartpole_graph, batch):
    session = onnxruntime.InferenceSession(cartpole_graph)
    outputs = ["action", "action_dist_inputs", "action_logp"]
    action, inputs, logp = session.run(outputs, {"observations": np.zeros((batch, 4), np.float32)})
    assert (logp.shape, logp.dtype) == ((batch,), np.float32)
    assert (action.shape, action.dtype) == ((batch,), np.int64)
    assert (inputs.shape, inputs.dtype) == ((batch, 2), np.float32)


def test_the_graph_contains_only_standard_operators_and_no_stack_traces(cartpole_graph):
    model = onnx.load_from_string(cartpole_graph)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert b".py" not in cartpole_graph


def test_continuous_actions_equal_those_of_rllibs_connector(build_policy, pendulum):
    policy = build_policy(pendulum)
    graph = to_onnx(policy)
    observations = np.random.default_rng(0).normal(scale=50, size=(200, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(graph)
    action, inputs = session.run(["action", "action_dist_inputs"], {"observations": observations})
    expected = np.stack([unsquash_action(mean, pendulum.action_space) for mean in inputs[:, :1]])
    np.testing.assert_allclose(action, expected, atol=1e-5)
    assert all(pendulum.action_space.contains(each) for each in action)
    check_equal(policy, graph, {"observations": observations})


def test_actions_with_noise_are_samples_of_the_policys_distribution(cartpole_policy, cartpole_graph):
    session = onnxruntime.InferenceSession(cartpole_graph)
    observations = np.repeat(np.array([[0.1, -1.0, 0.05, 2.0]], np.float32), 20_000, axis=0)
    noise = Noise(tuple(cartpole_policy.heads.noise)).draw(len(observations), seed=0)
    outputs = ["action", "action_dist_inputs", "action_logp"]
    action, inputs, logp = session.run(outputs, {"observations": observations, "noise": noise})
    probabilities = np.exp(inputs[0]) / np.exp(inputs[0]).sum()
    np.testing.assert_allclose(np.bincount(action) / len(action), probabilities, atol=0.015)
    np.testing.assert_allclose(np.exp(logp), probabilities[action], rtol=1e-4)


def test_the_value_estimate_equals_that_of_rllibs_module(build_module, cartpole, observations):
    module = build_module(cartpole, value_estimates=True)
    policy = ExportablePolicy(module, cartpole.observation_space, cartpole.action_space, with_values=True)
    graph = to_onnx(policy)
    values = onnxruntime.InferenceSession(graph).run(["values"], observations)[0]
    with torch.inference_mode():
        expected = module.compute_values({"obs": torch.from_numpy(observations["observations"])})
    assert np.abs(values).max() > 0.01
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    check_equal(policy, graph, observations)


def test_the_batch_size_is_free_with_free_log_std(build_policy, pendulum):
    policy = build_policy(pendulum, model_config='{"free_log_std": true}')
    observations = np.zeros((5, 3), np.float32)
    check_equal(policy, to_onnx(policy), {"observations": observations})


def test_the_caller_passes_the_state_and_it_defaults_to_zeros(build_policy, cartpole):
    policy = build_policy(cartpole, model_config='{"use_lstm": true, "lstm_cell_size": 8}')
    session = onnxruntime.InferenceSession(to_onnx(policy))
    names = ["state_out.actor.c", "state_out.actor.h"]
    observations = {"observations": np.ones((3, 4), np.float32)}
    first = session.run([*names, "action_dist_inputs"], observations)
    zeros = {f"state_in.actor.{name}": np.zeros((3, 1, 8), np.float32) for name in "ch"}
    for found, expected in zip(session.run(names, observations | zeros), first, strict=False):
        np.testing.assert_array_equal(found, expected)
    states = {name.replace("out", "in"): state for name, state in zip(names, first, strict=False)}
    assert not np.allclose(session.run(["action_dist_inputs"], observations | states)[0], first[-1])


def test_a_graph_without_optional_inputs_computes_the_same_greedy_action(build_policy, cartpole, observations):
    policy = build_policy(cartpole, model_config='{"use_lstm": true, "lstm_cell_size": 8}')
    graph = to_onnx(policy)
    greedy = onnxruntime.InferenceSession(without_optional_inputs(graph).SerializeToString())
    assert [each.name for each in greedy.get_inputs()] == ["observations"]
    assert greedy.get_overridable_initializers() == []
    expected = onnxruntime.InferenceSession(graph).run(None, observations)
    for found, output in zip(greedy.run(None, observations), expected, strict=True):
        np.testing.assert_allclose(found, output, atol=1e-6)


class _Untranslatable(torch.nn.Module):
    def is_stateful(self):
        return False

    def forward_inference(self, batch):
        return {"action_dist_inputs": torch.linalg.matrix_exp(batch["obs"] @ batch["obs"].T)}


def test_a_module_without_an_onnx_translation_is_rejected(cartpole):
    with pytest.raises(ExportFailed, match=r"cannot be exported to ONNX.*aten\.linalg_matrix_exp"):
        to_onnx(ExportablePolicy(_Untranslatable(), cartpole.observation_space, cartpole.action_space))


class _FixedBatch(_Untranslatable):
    def forward_inference(self, batch):
        return {"action_dist_inputs": batch["obs"][:, :2] + torch.zeros(len(batch["obs"]), 2)}


def test_a_module_that_fixes_the_batch_size_is_rejected(cartpole):
    with pytest.raises(ExportFailed, match=r"the module fixes the batch size\. Replace len\(x\) by x\.shape\[0\]"):
        to_onnx(ExportablePolicy(_FixedBatch(), cartpole.observation_space, cartpole.action_space))
