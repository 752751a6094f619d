"""The graph computes what RLlib computes, and a graph that doesn't is caught."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ray.rllib.utils.spaces.space_utils import unsquash_action

from pipeline import export
from pipeline.errors import ExportDiffers, ExportFailed
from pipeline.export import GreedyPolicy


@pytest.fixture(scope="module")
def cartpole_policy(build_module, cartpole):
    return GreedyPolicy(build_module(cartpole), cartpole.action_space)


@pytest.fixture(scope="module")
def cartpole_graph(cartpole_policy, cartpole):
    return export.to_onnx(cartpole_policy, cartpole.observation_space)


@pytest.fixture
def observations():
    return np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)


def test_the_graph_is_proved_equal_to_the_policy(cartpole_policy, cartpole_graph, cartpole, observations):
    export.prove_equal(cartpole_policy, cartpole_graph, observations, cartpole.action_space)


@pytest.mark.parametrize("batch", [1, 7, 1024])
def test_the_batch_size_is_free(cartpole_graph, batch):
    session = onnxruntime.InferenceSession(cartpole_graph)
    action, inputs = session.run(None, {"observations": np.zeros((batch, 4), np.float32)})
    assert (action.shape, action.dtype) == ((batch,), np.int64)
    assert (inputs.shape, inputs.dtype) == ((batch, 2), np.float32)


def test_the_graph_holds_standard_operators_and_no_trace_of_where_it_was_made(cartpole_graph):
    model = onnx.load_from_string(cartpole_graph)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert b".py" not in cartpole_graph


def test_a_graph_of_other_weights_is_caught(cartpole_policy, cartpole_graph, cartpole, observations):
    model = onnx.load_from_string(cartpole_graph)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.001, weight.name))
    with pytest.raises(ExportDiffers, match="distribution inputs differ by"):
        export.prove_equal(cartpole_policy, model.SerializeToString(), observations, cartpole.action_space)


def test_a_graph_of_other_actions_is_caught(cartpole_policy, cartpole_graph, cartpole, observations):
    model = onnx.load_from_string(cartpole_graph)
    argmax = next(node for node in model.graph.node if node.op_type == "ArgMax")
    argmax.op_type = "ArgMin"
    with pytest.raises(ExportDiffers, match="actions differ by 1"):
        export.prove_equal(cartpole_policy, model.SerializeToString(), observations, cartpole.action_space)


def test_continuous_actions_are_those_of_rllibs_connector(build_module, pendulum):
    """RLlib takes the Gaussian's mean and unsquashes it in a connector; here both are in the graph."""
    module = build_module(pendulum)
    policy = GreedyPolicy(module, pendulum.action_space)
    graph = export.to_onnx(policy, pendulum.observation_space)
    observations = np.random.default_rng(0).normal(scale=50, size=(200, 3)).astype(np.float32)
    inputs = module.forward_inference({"obs": torch.from_numpy(observations)})["action_dist_inputs"].detach().numpy()
    expected = np.stack([unsquash_action(mean, pendulum.action_space) for mean in inputs[:, :1]])
    action = onnxruntime.InferenceSession(graph).run(["action"], {"observations": observations})[0]
    np.testing.assert_allclose(action, expected, atol=1e-5)
    assert all(pendulum.action_space.contains(each) for each in action)
    export.prove_equal(policy, graph, observations, pendulum.action_space)


class _Untranslatable(torch.nn.Module):
    def forward_inference(self, batch):
        return {"action_dist_inputs": torch.linalg.matrix_exp(batch["obs"] @ batch["obs"].T)}


def test_what_cannot_be_exported_says_so(cartpole):
    with pytest.raises(ExportFailed, match="cannot be exported to ONNX"):
        export.to_onnx(GreedyPolicy(_Untranslatable(), cartpole.action_space), cartpole.observation_space)
