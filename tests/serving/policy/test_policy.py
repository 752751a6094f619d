import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gymnasium import spaces

from serving.policy.bundle import Bundle
from serving.policy.errors import BundleFileMissing, BundleInvalid, PolicyFailed
from serving.policy.policy import Policy
from serving.policy.tensors import Rows
from tests.serving.policies import (
    CARTPOLE,
    CARTPOLE_BUNDLE,
    COUNTING_BUNDLE,
    EXPLORING_BUNDLE,
    ROBOT,
    ROBOT_ACTIONS,
    ROBOT_BUNDLE,
    STEERING_BUNDLE,
    WEIGHTS,
    cartpole_graph,
    policy_json,
)


def test_a_policy_computes_the_actions_of_its_graph(policy: Policy) -> None:
    observations = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    actions = policy.act(observations)
    assert actions.dtype == np.int64
    np.testing.assert_array_equal(actions, np.argmax(observations @ WEIGHTS, axis=1))


def test_continuous_actions_are_in_the_environments_own_space() -> None:
    actions = Policy.load(STEERING_BUNDLE).act(np.array([[0.5], [-3]], np.float32))
    np.testing.assert_allclose(actions, 2 * np.tanh([[0.5], [-3]]), rtol=1e-6)


def test_a_policy_has_the_spaces_and_the_environment_of_its_bundle(policy: Policy) -> None:
    assert policy.observation_space == CARTPOLE
    assert policy.action_space == spaces.Discrete(2)
    assert policy.environment.id == "CartPole-v1"
    assert policy.environment.kwargs == {}


def test_a_policy_is_greedy_unless_its_input_holds_noise() -> None:
    policy = Policy.load(EXPLORING_BUNDLE)
    observations = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    logits = observations @ WEIGHTS
    np.testing.assert_array_equal(policy.act(observations), np.argmax(logits, axis=1))
    noise = np.tile(np.array([1e6, 0], np.float32), (100, 1))
    rows = Rows({"observations": observations, "noise": noise}, np.ones(100, bool), np.zeros(100, bool))
    found = policy.act(rows)
    assert isinstance(found, Rows)
    assert not found.tensors["action"].any()
    np.testing.assert_allclose(found.tensors["action_dist_inputs"], logits, rtol=1e-5)
    np.testing.assert_allclose(
        found.tensors["action_logp"], logits[:, 0] - np.logaddexp(logits[:, 0], logits[:, 1]), rtol=1e-4, atol=1e-6
    )


def test_sampled_actions_have_the_distribution_of_the_policy() -> None:
    policy = Policy.load(EXPLORING_BUNDLE)
    noise = policy.interface.noise
    assert noise is not None
    observations = np.tile(np.array([0, 0, 0.2, 0], np.float32), (20_000, 1))
    rows = Rows({"observations": observations, "noise": noise.draw(20_000, seed=1)}, *[np.zeros(20_000, bool)] * 2)
    found = policy.act(rows)
    assert isinstance(found, Rows)
    chance = 1 / (1 + np.exp(-np.ptp(observations[0] @ WEIGHTS)))
    assert found.tensors["action"].mean() == pytest.approx(chance, abs=0.015)


def test_a_policy_of_nested_spaces_has_one_tensor_per_array() -> None:
    policy = Policy.load(ROBOT_BUNDLE)
    found = policy.run(policy.interface.example(3), policy.interface.required_outputs)
    assert {name: array.shape for name, array in found.items()} == {
        "action.drive": (3, 2),
        "action.flags.0": (3, 2),
        "action.flags.1": (3, 2),
        "action.mode": (3,),
    }


def test_a_recurrent_policy_returns_its_next_state() -> None:
    policy = Policy.load(COUNTING_BUNDLE)
    fed = {**policy.interface.example(1), "observations": np.array([[2]], np.float32)}
    found = policy.run(fed, policy.interface.required_outputs)
    assert found["state_out.sum"].tolist() == [[2]]
    assert found["state_out.steps"].tolist() == [[[1, 1, 1]] * 2]


def test_a_bundle_names_the_steps_after_which_an_episode_is_cut() -> None:
    assert Policy.load(CARTPOLE_BUNDLE).environment.max_episode_steps == 5000
    policy = Policy.load(Bundle(CARTPOLE_BUNDLE.graph, changed(max_episode_steps=40)))
    assert policy.environment.to_json() == {"id": "CartPole-v1", "kwargs": {}, "max_episode_steps": 40}


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, None, "1"])
def test_a_bundle_whose_step_limit_is_no_number_of_steps_is_rejected(limit: Any) -> None:
    with pytest.raises(BundleInvalid, match="max_episode_steps"):
        Policy.load(Bundle(CARTPOLE_BUNDLE.graph, changed(max_episode_steps=limit)))


def test_a_bundle_names_the_wrappers_of_its_environment() -> None:
    policy = Policy.load(Bundle(CARTPOLE_BUNDLE.graph, changed(wrappers=["module:Class"])))
    assert policy.environment.wrappers == ("module:Class",)
    assert policy.environment.to_json() == {"id": "CartPole-v1", "kwargs": {}, "wrappers": ["module:Class"]}


def test_a_failing_graph_raises_without_the_runtimes_message(policy: Policy) -> None:
    with pytest.raises(PolicyFailed, match="the server's log has the reason"):
        policy.act(np.zeros((1, 5), np.float32))


def test_a_bundle_is_read_from_a_directory(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(CARTPOLE_BUNDLE.graph)
    (tmp_path / "policy.json").write_bytes(CARTPOLE_BUNDLE.policy)
    assert Bundle.read(tmp_path) == CARTPOLE_BUNDLE


def test_the_error_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleFileMissing) as caught:
        Bundle.read(tmp_path)
    assert str(caught.value) == f"cannot read model.onnx of {tmp_path}: No such file or directory"


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(policy_json()), **changes}).encode()


@pytest.mark.parametrize(
    ("bundle", "message"),
    [
        (Bundle(CARTPOLE_BUNDLE.graph, b"{"), "policy.json is not valid"),
        (Bundle(CARTPOLE_BUNDLE.graph, b"[]"), "policy.json is not valid"),
        (Bundle(CARTPOLE_BUNDLE.graph, b"\xff"), "policy.json is not valid"),
        (Bundle(CARTPOLE_BUNDLE.graph, b'{"format": 1}'), "policy.json is not valid"),
        (Bundle(CARTPOLE_BUNDLE.graph, changed(format=0)), "its format is 0, expected an integer"),
        (Bundle(CARTPOLE_BUNDLE.graph, changed(environment={"id": "x"})), '"environment" needs "id" and "kwargs"'),
        (Bundle(CARTPOLE_BUNDLE.graph, changed(noise=[{"distribution": "normal", "size": 1}])), "inputs are 'observ"),
        (Bundle(EXPLORING_BUNDLE.graph, changed(noise=[{"distribution": "gumbel", "size": 3}])), "model.onnx is not"),
        (Bundle(CARTPOLE_BUNDLE.graph, changed(state={"h": {"shape": [1]}})), "its inputs are 'observations', "),
        (Bundle(CARTPOLE_BUNDLE.graph, changed(state={"h": {"shape": 1}})), '"state" is not of the form'),
        (Bundle(CARTPOLE_BUNDLE.graph, changed(state={"h": {"shape": [1], "initial": 1}})), '"state" is not of the'),
        (Bundle(CARTPOLE_BUNDLE.graph, changed(state=[])), '"state" is not of the form'),
        (Bundle(COUNTING_BUNDLE.graph, policy_json(spaces.Box(-10, 10, (1,)))), "model.onnx is not valid"),
        (Bundle(ROBOT_BUNDLE.graph, policy_json(CARTPOLE, ROBOT_ACTIONS)), "its inputs are 'observations.arm.grip', "),
        (Bundle(ROBOT_BUNDLE.graph, policy_json(ROBOT)), "it lacks the outputs 'action'"),
        (Bundle(CARTPOLE_BUNDLE.graph[:-40], policy_json()), "model.onnx is not valid: it is truncated"),
        (Bundle(b"", policy_json()), "model.onnx is not valid: it contains no graph"),
        (Bundle(cartpole_graph(input="x").SerializeToString(), policy_json()), "model.onnx is not valid"),
        (Bundle(CARTPOLE_BUNDLE.graph, policy_json(spaces.Box(-1, 1, (3,)))), "model.onnx is not valid"),
        (
            Bundle(CARTPOLE_BUNDLE.graph, policy_json(CARTPOLE, spaces.Box(-2, 2, (1,)))),
            r"its actions have shape \(1,\), expected \(1, 1\)",
        ),
    ],
)
def test_a_bundle_whose_parts_do_not_match_is_rejected(bundle: Bundle, message: str) -> None:
    with pytest.raises(BundleInvalid, match=message):
        Policy.load(bundle)


@pytest.mark.parametrize(("dtype", "shape"), [(onnx.TensorProto.STRING, (1,)), (onnx.TensorProto.FLOAT, ())])
def test_values_that_are_no_floats_for_each_row_are_rejected(dtype: int, shape: tuple[int, ...]) -> None:
    graph = cartpole_graph()
    values = onnx.helper.make_tensor("the_values", dtype, shape, [b"high" if dtype == onnx.TensorProto.STRING else 1.0])
    graph.graph.node.append(onnx.helper.make_node("Constant", [], ["values"], value=values))
    graph.graph.output.append(onnx.helper.make_tensor_value_info("values", dtype, shape))
    with pytest.raises(BundleInvalid, match=r"its values have shape .*, expected \(\d, ...\) of floats"):
        Policy.load(Bundle(graph.SerializeToString(), policy_json()))


def test_a_pickle_in_place_of_the_graph_is_never_loaded() -> None:
    with pytest.raises(BundleInvalid):
        Policy.load(Bundle(pickle.dumps(Bomb()), policy_json()))
    assert "antigravity" not in sys.modules


class Bomb:
    def __reduce__(self) -> Any:
        return __import__, ("antigravity",)
