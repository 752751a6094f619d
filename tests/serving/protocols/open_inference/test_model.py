"""Models of the Open Inference Protocol, without HTTP and gRPC."""

from typing import Any

import numpy as np
import pytest

from serving.errors import ServingError
from serving.policy.bundle import Bundle
from serving.policy.policy import Policy
from serving.policy.tensors import Batch, Rows
from serving.protocols.open_inference.datatypes import InputTensor, TensorInfo
from serving.protocols.open_inference.model import InferenceModel, InferenceRequest
from tests.serving.asking import served
from tests.serving.policies import CARTPOLE_BUNDLE, COUNTING_BUNDLE, EXPLORING_BUNDLE, ROBOT_BUNDLE, STEERING_BUNDLE

CART = InputTensor("observations", "FP32", (2, 4), [0, 0, 1, 0, 0, 0, -1, 0])
STEP = InputTensor("observations", "FP32", (1, 1), [2])


class Computed:
    """A request and the arrays that the policy computes for it."""

    def __init__(self, bundle: Bundle, *inputs: InputTensor, outputs: tuple[str, ...] = (), **parameters: Any) -> None:
        policy, model = served(bundle).policy, served(bundle).prepared(InferenceModel)
        self.request = model.decode(InferenceRequest("", parameters, inputs, outputs))
        batch: Batch = self.request.batch
        computed = policy.act(batch) if len(batch) else batch
        self.arrays = {tensor.name: tensor.array for tensor in model.encode(self.request, computed)}


def test_the_response_has_the_requested_outputs_or_else_all() -> None:
    assert list(Computed(CARTPOLE_BUNDLE, CART).arrays) == ["action", "action_dist_inputs"]
    assert list(Computed(EXPLORING_BUNDLE, CART, outputs=("values", "action")).arrays) == ["values", "action"]


def test_a_request_for_the_action_alone_is_a_batch_of_one_array() -> None:
    computed = Computed(CARTPOLE_BUNDLE, CART, outputs=("action",))
    assert isinstance(computed.request.batch, np.ndarray)
    assert computed.arrays["action"].tolist() == [1, 0]


def test_metadata_has_the_inputs_and_outputs_of_a_nested_policy() -> None:
    model = served(ROBOT_BUNDLE).prepared(InferenceModel)
    assert model.inputs == (
        TensorInfo("observations.arm.grip", "INT64", (-1,)),
        TensorInfo("observations.arm.position", "FP32", (-1, 3)),
        TensorInfo("observations.goal.0", "UINT8", (-1, 2, 2)),
        TensorInfo("observations.goal.1", "INT64", (-1, 2)),
        TensorInfo("observations.switches", "INT8", (-1, 2)),
    )
    assert [tensor.name for tensor in model.outputs] == [
        *("action.drive", "action.flags.0", "action.flags.1", "action.mode", "action_dist_inputs")
    ]


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_numbers_have_a_dimension_more_if_mlservers_client_sends_them(shape: tuple[int, ...]) -> None:
    model = served(ROBOT_BUNDLE).prepared(InferenceModel)
    tensors = [
        InputTensor("observations.switches", "BOOL", (1, 2), [True, False]),
        InputTensor("observations.goal.0", "UINT8", (1, 2, 2), bytes([0, 1, 2, 255])),
        InputTensor("observations.goal.1", "INT64", (1, 2), [2, 1]),
        InputTensor("observations.arm.position", "FP32", (1, 3), [0, 0, 0]),
        InputTensor("observations.arm.grip", "INT64", shape, [-1]),
    ]
    batch = model.decode(InferenceRequest("", {}, tensors, ())).batch
    assert isinstance(batch, Rows)
    assert batch.tensors["observations.arm.grip"].tolist() == [-1]


def test_a_nested_observation_has_a_nested_action() -> None:
    tensors = [
        InputTensor("observations.switches", "BOOL", (1, 2), [True, False]),
        InputTensor("observations.goal.0", "UINT8", (1, 2, 2), bytes([0, 1, 2, 255])),
        InputTensor("observations.goal.1", "INT32", (1, 2), [2, 1]),
        InputTensor("observations.arm.grip", "INT64", (1,), [-1]),
        InputTensor("observations.arm.position", "FP64", (1, 3), [0.5, -0.25, 1]),
    ]
    found = Computed(ROBOT_BUNDLE, *tensors, outputs=("action.drive", "action.flags.0", "action.mode"))
    assert {name: array.tolist() for name, array in found.arrays.items()} == {
        "action.drive": [[0.5, -0.25]],
        "action.flags.0": [[1, 0]],
        "action.mode": [5],
    }


def test_sampled_actions_are_reproducible_with_a_seed() -> None:
    many = InputTensor("observations", "FP32", (64, 4), bytes(64 * 16))
    one, same, other = (
        Computed(EXPLORING_BUNDLE, many, explore=True, seed=seed).arrays["action"].tolist() for seed in (1, 1, 2)
    )
    assert one == same != other


def test_a_recurrent_policy_continues_from_the_states_of_its_last_response() -> None:
    first = Computed(COUNTING_BUNDLE, STEP).arrays
    state = [
        InputTensor(name.replace("_out", "_in"), "FP32", array.shape, array.tobytes())
        for name, array in first.items()
        if name.startswith("state_out.")
    ]
    second = Computed(COUNTING_BUNDLE, STEP, *state, state_version=3)
    assert not second.request.state_reset
    assert second.arrays["state_out.sum"].tolist() == [[4]]
    assert second.arrays["state_out.steps"].max() == 2


@pytest.mark.parametrize("written_by", ["2", 2])
def test_a_state_of_another_version_is_replaced_and_reported(written_by: object) -> None:
    state = InputTensor("state_in.gone", "FP32", (1, 9), bytes(36))
    found = Computed(COUNTING_BUNDLE, STEP, state, state_version=written_by)
    assert found.request.state_reset
    assert found.arrays["state_out.sum"].tolist() == [[2]]


def test_an_empty_batch_has_empty_outputs() -> None:
    arrays = Computed(
        ROBOT_BUNDLE, *(_empty(info) for info in served(ROBOT_BUNDLE).prepared(InferenceModel).inputs)
    ).arrays
    assert arrays["action.drive"].shape == (0, 2)


def _empty(info: TensorInfo) -> InputTensor:
    return InputTensor(info.name, info.datatype, (0, *info.shape[1:]), b"")


NAN = InputTensor("observations", "FP32", (1, 4), [0, 0, float("nan"), 0])
SUM = InputTensor("state_in.sum", "FP32", (1, 1), [0])
STEPS = InputTensor("state_in.steps", "FP32", (2, 2, 3), bytes(48))


@pytest.mark.parametrize(
    ("bundle", "inputs", "more", "message"),
    [
        (CARTPOLE_BUNDLE, [], {}, "inputs is a list without 'observations', expected observations"),
        (CARTPOLE_BUNDLE, [CART, CART], {}, "inputs is a list with a repeated name, expected each name once"),
        (
            CARTPOLE_BUNDLE,
            [CART._replace(name="x")],
            {},
            'inputs[0].name: the string "x", expected one of observations',
        ),
        (
            CARTPOLE_BUNDLE,
            [CART._replace(shape=(8,))],
            {},
            "observations has shape (8,), expected (batch, 4) float32",
        ),
        (CARTPOLE_BUNDLE, [NAN], {}, "observations[0][2] is NaN, expected a finite float32"),
        (
            CARTPOLE_BUNDLE,
            [CART],
            {"outputs": ("x",)},
            'outputs[0].name: the string "x", expected one of action, action_dist_inputs',
        ),
        (
            CARTPOLE_BUNDLE,
            [CART],
            {"outputs": ("action", "action")},
            "outputs is a list with a repeated name, expected each name once",
        ),
        (
            CARTPOLE_BUNDLE,
            [CART],
            {"sequence_id": 7},
            "parameters.sequence_id: an unsupported extension, expected only that of binary tensors",
        ),
        (CARTPOLE_BUNDLE, [CART], {"explore": 1}, '"explore" is 1, expected true or false'),
        (CARTPOLE_BUNDLE, [CART], {"seed": "1"}, '"seed" is the string "1", expected an integer from 0 to 2**64 - 1'),
        (
            CARTPOLE_BUNDLE,
            [CART],
            {"state_version": 1.5},
            '"state_version" is 1.5, expected the model_version of the response with the state',
        ),
        (
            CARTPOLE_BUNDLE,
            [CART],
            {"explore": True},
            'this version computes greedy actions only, because its graph has no noise input; leave "explore" out',
        ),
        (
            COUNTING_BUNDLE,
            [STEP, SUM],
            {},
            "inputs is a list without 'state_in.steps', expected observations, state_in.sum, state_in.steps",
        ),
        (
            COUNTING_BUNDLE,
            [STEP, SUM, STEPS],
            {},
            "inputs is 1 of observations, 1 of state_in.sum, 2 of state_in.steps, expected the same number of each",
        ),
        (
            STEERING_BUNDLE,
            [STEP._replace(elements=[7])],
            {},
            "the policy computed numbers that are not finite, in its output 'action'",
        ),
    ],
)
def test_an_invalid_part_is_rejected_with_its_name(
    bundle: Bundle, inputs: list[InputTensor], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ServingError) as caught:
        Computed(bundle, *inputs, **more)
    assert str(caught.value) == message


def test_integers_are_limited_by_the_space() -> None:
    model = InferenceModel(Policy.load(ROBOT_BUNDLE), served().version)
    inputs = [_empty(info) for info in model.inputs]
    inputs[0] = InputTensor("observations.arm.grip", "INT64", (1,), [2])
    with pytest.raises(ServingError, match=r"observations.arm.grip\[0\]: 2, expected an integer from -1 to 1"):
        model.decode(InferenceRequest("", {}, inputs, ()))
