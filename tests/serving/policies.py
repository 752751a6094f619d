"""Small real policies."""

import hashlib
import json
import re
from typing import Any, NamedTuple

import numpy as np
import onnx
from gymnasium import spaces
from onnx import TensorProto, helper

from serving.policy.bundle import Bundle
from serving.policy.spaces import space_to_json

CARTPOLE = spaces.Box(
    np.array([-4.8, -np.inf, -0.42, -np.inf], np.float32), np.array([4.8, np.inf, 0.42, np.inf], np.float32)
)
ROBOT = spaces.Dict(
    arm=spaces.Dict(position=spaces.Box(-1, 1, (3,)), grip=spaces.Discrete(3, start=-1)),
    goal=spaces.Tuple([spaces.Box(0, 255, (2, 2), np.uint8), spaces.MultiDiscrete([2, 3], start=[1, 0])]),
    switches=spaces.MultiBinary(2),
)
# Pushes the cart to the side to which the pole falls, which reaches the maximum return of 500.
WEIGHTS = np.array([[0, 0.1], [0, 0.5], [0, 5], [0, 1]], np.float32)


def cartpole_graph(**changes: Any) -> onnx.ModelProto:
    """A linear policy for CartPole: logits = observations @ WEIGHTS, action = their argmax."""
    nodes = changes.get("nodes") or [
        helper.make_node("MatMul", ["observations", "weights"], ["action_dist_inputs"]),
        helper.make_node("ArgMax", ["action_dist_inputs"], ["action"], axis=1, keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info(changes.get("input", "observations"), TensorProto.FLOAT, ["batch", 4])]
    outputs = [
        helper.make_tensor_value_info("action", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("action_dist_inputs", TensorProto.FLOAT, ["batch", 2]),
    ]
    weights = onnx.numpy_helper.from_array(changes.get("weights", WEIGHTS), "weights")
    graph = helper.make_graph(nodes, "policy", inputs, outputs, [weights])
    return helper.make_model(graph, opset_imports=changes.get("opsets") or [helper.make_opsetid("", 17)], ir_version=8)


def steering_graph() -> onnx.ModelProto:
    """A continuous policy: action = 2 * tanh(observation), `[batch, 1]`; NaN where the observation is 7."""
    nodes = [
        helper.make_node("Tanh", ["observations"], ["squashed"]),
        helper.make_node("Mul", ["squashed", "two"], ["scaled"]),
        helper.make_node("Equal", ["observations", "seven"], ["is_seven"]),
        helper.make_node("Where", ["is_seven", "nan", "scaled"], ["action"]),
    ]
    constants = {"two": 2.0, "seven": 7.0, "nan": np.nan}
    return helper.make_model(
        helper.make_graph(
            nodes,
            "policy",
            [helper.make_tensor_value_info("observations", TensorProto.FLOAT, ["batch", 1])],
            [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", 1])],
            [onnx.numpy_helper.from_array(np.array([value], np.float32), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


class Tensor(NamedTuple):
    """An input or output of a graph, `[batch, *shape]`."""

    name: str
    shape: tuple[int, ...] = ()
    dtype: Any = np.float32

    def info(self) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(
            self.name, helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)), ["batch", *self.shape]
        )

    def zeros(self) -> onnx.TensorProto:
        """Return the default value of an optional input."""
        return onnx.numpy_helper.from_array(np.zeros((1, *self.shape), self.dtype), self.name)


def model(nodes: list[str], inputs: list[Tensor], outputs: list[Tensor], **constants: Any) -> bytes:
    """Build a graph from lines like `sum = Add(one, other)`. Inputs named noise or state_in.* are optional."""
    optional = [each for each in inputs if each.name == "noise" or each.name.startswith("state_in.")]
    weights = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    # The parser accepts names with dots only in quotes.
    text = re.sub(r"[a-z_0-9]+(\.[a-z_0-9]+)+", r'"\g<0>"', "\n".join(nodes))
    graph = helper.make_graph(
        onnx.parser.parse_graph(f"g (float[1] x) => (float[1] y) {{{text}}}").node,
        "policy",
        [each.info() for each in inputs],
        [each.info() for each in outputs],
        [*weights, *(each.zeros() for each in optional)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


LOGP = """log_p = LogSoftmax <axis = -1> (action_dist_inputs)
column = Unsqueeze(action, last)
action_log_p = GatherElements <axis = 1> (log_p, column)
action_logp = Squeeze(action_log_p, last)"""


def exploring_graph() -> bytes:
    """CartPole's linear policy with noise, log-probability, and the sum of the observation as its value."""
    return model(
        [
            "action_dist_inputs = MatMul(observations, weights)",
            "perturbed = Add(action_dist_inputs, noise)",
            "action = ArgMax <axis = 1, keepdims = 0> (perturbed)",
            LOGP,
            "values = ReduceSum <keepdims = 0> (observations, last)",
        ],
        [Tensor("observations", (4,)), Tensor("noise", (2,))],
        [
            Tensor("action", dtype=np.int64),
            Tensor("action_dist_inputs", (2,)),
            Tensor("action_logp"),
            Tensor("values"),
        ],
        weights=WEIGHTS,
        last=np.array([1]),
    )


def counting_graph() -> bytes:
    """A recurrent policy: its action is 1 where the observations so far, and the noise, sum up to more than 0."""
    return model(
        [
            "state_out.sum = Add(state_in.sum, observations)",
            "state_out.steps = Add(state_in.steps, one)",
            "noisy = Add(state_out.sum, noise)",
            "positive = Greater(noisy, zero)",
            "number = Cast <to = 7> (positive)",
            "action = Squeeze(number, last)",
            "flat = Reshape(state_out.steps, row)",
            "action_dist_inputs = Concat <axis = 1> (state_out.sum, flat)",
        ],
        [
            Tensor("observations", (1,)),
            Tensor("noise", (1,)),
            Tensor("state_in.sum", (1,)),
            Tensor("state_in.steps", (2, 3)),
        ],
        [
            Tensor("action", dtype=np.int64),
            Tensor("action_dist_inputs", (7,)),
            Tensor("state_out.sum", (1,)),
            Tensor("state_out.steps", (2, 3)),
        ],
        one=np.float32(1),
        zero=np.float32(0),
        last=np.array([1]),
        row=np.array([-1, 6]),
    )


def robot_graph() -> bytes:
    """A policy whose actions repeat parts of ROBOT's observations."""
    return model(
        [
            "action.drive = Slice(observations.arm.position, zero, two, last)",
            "action.flags.0 = Identity(observations.switches)",
            "action.flags.1 = Sub(observations.goal.1, lows)",
            "action.mode = Add(observations.arm.grip, six)",
            "image = Cast <to = 1> (observations.goal.0)",
            "action_dist_inputs = ReduceMean <keepdims = 0> (image, last)",
        ],
        [
            Tensor("observations.arm.grip", dtype=np.int64),
            Tensor("observations.arm.position", (3,)),
            Tensor("observations.goal.0", (2, 2), np.uint8),
            Tensor("observations.goal.1", (2,), np.int64),
            Tensor("observations.switches", (2,), np.int8),
        ],
        [
            Tensor("action.drive", (2,)),
            Tensor("action.flags.0", (2,), np.int8),
            Tensor("action.flags.1", (2,), np.int64),
            Tensor("action.mode", dtype=np.int64),
            Tensor("action_dist_inputs", (2,)),
        ],
        zero=np.array([0]),
        two=np.array([2]),
        last=np.array([1]),
        lows=np.array([1, 0]),
        six=np.int64(6),
    )


def policy_json(
    observation_space: Any = CARTPOLE, action_space: Any = None, env_id: str = "CartPole-v1", **more: Any
) -> bytes:
    description = {
        "format": 1,
        "environment": {"id": env_id, "kwargs": {}},
        "observation_space": space_to_json(observation_space),
        "action_space": space_to_json(action_space or spaces.Discrete(2)),
        "versions": {"ray": "2.60.0"},
        **more,
    }
    return json.dumps(description).encode()


CARTPOLE_BUNDLE = Bundle(cartpole_graph().SerializeToString(), policy_json())
CONTRARY_BUNDLE = Bundle(cartpole_graph(weights=-WEIGHTS).SerializeToString(), policy_json())
"""The policy that takes the other action for every observation, with the same spaces."""
STEERING_BUNDLE = Bundle(
    steering_graph().SerializeToString(),
    policy_json(spaces.Box(-10, 10, (1,)), spaces.Box(-2, 2, (1,)), "Pendulum-v1"),
)
EXPLORING_BUNDLE = Bundle(exploring_graph(), policy_json(noise=[{"distribution": "gumbel", "size": 2}]))
COUNTING_BUNDLE = Bundle(
    counting_graph(),
    policy_json(
        spaces.Box(-10, 10, (1,)),
        env_id="tests.serving.counting:Counting-v0",
        noise=[{"distribution": "normal", "size": 1}],
        state={"sum": {"shape": [1]}, "steps": {"shape": [2, 3]}},
    ),
)
ROBOT_ACTIONS = spaces.Dict(
    drive=spaces.Box(-1, 1, (2,)),
    flags=spaces.Tuple([spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3])]),
    mode=spaces.Discrete(3, start=5),
)
ROBOT_BUNDLE = Bundle(robot_graph(), policy_json(ROBOT, ROBOT_ACTIONS))
ROBOT_OBSERVATION = {
    "arm": {"position": [0.5, -0.25, 1], "grip": -1},
    "goal": [[[0, 1], [2, 255]], [2, 1]],
    "switches": [1, 0],
}


def digest_tags(bundle: Bundle) -> dict[str, str]:
    files = {"model.onnx": bundle.graph, "policy.json": bundle.policy}
    return {f"sha256.{file}": hashlib.sha256(content).hexdigest() for file, content in files.items()}
