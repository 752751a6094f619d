import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serving.policy.policy import Bundle
from serving.rollout import trial as candidate
from serving.rollout.errors import CandidateRefused
from serving.rollout.trial import Limits
from tests.serving.policies import CARTPOLE_BUNDLE, STEERING_BUNDLE, cartpole_graph, policy_json


def endless_graph() -> bytes:
    """A graph whose loop never ends."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes_on"]), helper.make_node("Identity", ["kept"], ["keeps"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("keeps", TensorProto.FLOAT, []),
        ],
    )
    # Its end depends on the observations, so that no optimizer finds it.
    nodes = [
        helper.make_node("IsNaN", ["observations"], ["nans"]),
        helper.make_node("Cast", ["nans"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        helper.make_node("Less", ["sum", "one"], ["start"]),
        helper.make_node("Loop", ["", "start", "sum"], ["never"], body=body),
        helper.make_node("MatMul", ["observations", "weights"], ["logits"]),
        helper.make_node("Add", ["logits", "never"], ["action_dist_inputs"]),
        helper.make_node("ArgMax", ["action_dist_inputs"], ["action"], axis=1, keepdims=0),
    ]
    graph = cartpole_graph(nodes=nodes)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "one"))
    return graph.SerializeToString()


def greedy_graph(floats: int) -> bytes:
    """A graph that asks for `floats` numbers to answer with."""
    nodes = [
        helper.make_node("ConstantOfShape", ["many"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["observations", "weights"], ["logits"]),
        helper.make_node("Add", ["logits", "sum"], ["action_dist_inputs"]),
        helper.make_node("ArgMax", ["action_dist_inputs"], ["action"], axis=1, keepdims=0),
    ]
    graph = cartpole_graph(nodes=nodes)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([floats], np.int64), "many"))
    return graph.SerializeToString()


@pytest.mark.parametrize("bundle", [CARTPOLE_BUNDLE, STEERING_BUNDLE])
def test_a_good_bundle_passes(bundle: Bundle) -> None:
    candidate.check(bundle, Limits())


def test_what_policy_says_of_a_bad_bundle_comes_through() -> None:
    with pytest.raises(CandidateRefused, match=r"^model\.onnx is not valid: it is truncated$"):
        candidate.check(Bundle(CARTPOLE_BUNDLE.graph[:-10], CARTPOLE_BUNDLE.policy), Limits())


def test_a_graph_that_never_ends_is_given_up() -> None:
    start = time.monotonic()
    with pytest.raises(CandidateRefused, match="it did not load and answer within 2 s"):
        candidate.check(Bundle(endless_graph(), policy_json()), Limits(timeout_s=2))
    assert time.monotonic() - start < 5


def test_a_graph_that_wants_too_much_memory_is_refused() -> None:
    hungry = Bundle(greedy_graph(1 << 28), policy_json())
    with pytest.raises(CandidateRefused):
        candidate.check(hungry, Limits(memory_bytes=256 << 20))


def test_the_child_dies_without_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "__name__", "this_is_no_module")
    with pytest.raises(CandidateRefused, match="loading it ended its process with status 1"):
        candidate.check(CARTPOLE_BUNDLE, Limits())
