"""Policies for CartPole that act as they should, but for one observation: there they loop, crash, or compute NaN."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from serving.policy.bundle import Bundle
from tests.serving.policies import WEIGHTS, Tensor, cartpole_graph, model, policy_json

FATAL = 0.777
"""The position of the cart at which they fail."""
FATAL_OBSERVATION = [FATAL, 0.0, 0.0, 0.0]

DISTRIBUTION = [Tensor("action", dtype=np.int64), Tensor("action_dist_inputs", (2,))]
IS_FATAL = """position = Slice(observations, zero, one, last)
is_fatal = Equal(position, fatal)"""
CONSTANTS = {
    "weights": WEIGHTS,
    "zero": np.array([0]),
    "one": np.array([1]),
    "last": np.array([1]),
    "fatal": np.float32(FATAL),
}


def diverging_graph() -> bytes:
    """A graph whose logits are NaN, and whose action therefore is 0, at the fatal position."""
    return model(
        [
            IS_FATAL,
            "logits = MatMul(observations, weights)",
            "action_dist_inputs = Where(is_fatal, nan, logits)",
            "action = ArgMax <axis = 1, keepdims = 0> (action_dist_inputs)",
        ],
        [Tensor("observations", (4,))],
        DISTRIBUTION,
        **CONSTANTS,
        nan=np.float32(np.nan),
    )


def crashing_graph() -> bytes:
    """A graph that divides the least integer by -1 at the fatal position: on x86, ONNX Runtime dies of SIGFPE."""
    return model(
        [
            IS_FATAL,
            "fatal_number = Cast <to = 7> (is_fatal)",
            "twice = Mul(fatal_number, two)",
            "divisor = Sub(unit, twice)",
            "ratio = Div(least, divisor)",
            "difference = Sub(ratio, ratio)",
            "nothing = Cast <to = 1> (difference)",
            "logits = MatMul(observations, weights)",
            "action_dist_inputs = Add(logits, nothing)",
            "action = ArgMax <axis = 1, keepdims = 0> (action_dist_inputs)",
        ],
        [Tensor("observations", (4,))],
        DISTRIBUTION,
        **CONSTANTS,
        unit=np.array([[1]]),
        two=np.array([[2]]),
        least=np.array([[-(2**63)]]),
    )


def looping_graph() -> bytes:
    """A graph whose loop never ends at the fatal position."""
    kept = [("going", "still_going", TensorProto.BOOL), ("kept", "still_kept", TensorProto.FLOAT)]
    body = helper.make_graph(
        [helper.make_node("Identity", [before], [after]) for before, after, _ in kept],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            *(helper.make_tensor_value_info(before, kind, []) for before, _, kind in kept),
        ],
        [helper.make_tensor_value_info(after, kind, []) for _, after, kind in kept],
    )
    nodes = [
        helper.make_node("Equal", ["observations", "fatal"], ["is_fatal"]),
        helper.make_node("Cast", ["is_fatal"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "nothing"], ["start"]),
        helper.make_node("Loop", ["", "start", "nothing"], ["never"], body=body),
        helper.make_node("MatMul", ["observations", "weights"], ["logits"]),
        helper.make_node("Add", ["logits", "never"], ["action_dist_inputs"]),
        helper.make_node("ArgMax", ["action_dist_inputs"], ["action"], axis=1, keepdims=0),
    ]
    graph = cartpole_graph(nodes=nodes)
    for name, value in (("fatal", FATAL), ("nothing", 0.0)):
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    return graph.SerializeToString()


FAILING = {
    "output_not_finite": Bundle(diverging_graph(), policy_json()),
    "inference_timeout": Bundle(looping_graph(), policy_json()),
    "crashed": Bundle(crashing_graph(), policy_json()),
}
"""A policy for each code of a fault."""
