import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.policy.errors import BundleInvalid, PolicyFailed
from serving.policy.policy import Bundle, Policy
from serving.policy.rows import Rows
from serving.registry.errors import BundleFileMissing
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


def test_a_continuous_policy_answers_in_the_environments_space() -> None:
    actions = Policy.load(STEERING_BUNDLE).act(np.array([[0.5], [-3]], np.float32))
    np.testing.assert_allclose(actions, 2 * np.tanh([[0.5], [-3]]), rtol=1e-6)


def test_a_policy_knows_its_spaces_and_environment(policy: Policy) -> None:
    assert policy.observation_space == CARTPOLE
    assert policy.action_space == spaces.Discrete(2)
    assert policy.environment.id == "CartPole-v1"
    assert policy.environment.kwargs == {}


def test_a_policy_is_greedy_unless_it_is_fed_noise() -> None:
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


def test_a_nested_policy_runs_on_one_array_per_leaf() -> None:
    policy = Policy.load(ROBOT_BUNDLE)
    found = policy.run(policy.interface.example(3), policy.interface.required_outputs)
    assert {name: array.shape for name, array in found.items()} == {
        "action.drive": (3, 2),
        "action.flags.0": (3, 2),
        "action.flags.1": (3, 2),
        "action.mode": (3,),
    }


def test_a_recurrent_policy_returns_the_state_it_is_to_be_fed() -> None:
    policy = Policy.load(COUNTING_BUNDLE)
    fed = {**policy.interface.example(1), "observations": np.array([[2]], np.float32)}
    found = policy.run(fed, policy.interface.required_outputs)
    assert found["state_out.sum"].tolist() == [[2]]
    assert found["state_out.steps"].tolist() == [[[1, 1, 1]] * 2]


def test_an_environment_may_have_wrappers() -> None:
    policy = Policy.load(Bundle(CARTPOLE_BUNDLE.graph, changed(wrappers=["module:Class"])))
    assert policy.environment.wrappers == ("module:Class",)
    assert policy.environment.to_json() == {"id": "CartPole-v1", "kwargs": {}, "wrappers": ["module:Class"]}


def test_a_failing_graph_says_so_in_our_words(policy: Policy) -> None:
    with pytest.raises(PolicyFailed, match="the server's log says why"):
        policy.act(np.zeros((1, 5), np.float32))


def test_a_bundle_is_read_from_a_directory(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(CARTPOLE_BUNDLE.graph)
    (tmp_path / "policy.json").write_bytes(CARTPOLE_BUNDLE.policy)
    assert Bundle.read(tmp_path) == CARTPOLE_BUNDLE


def test_a_missing_file_is_named(tmp_path: Path) -> None:
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
        (Bundle(CARTPOLE_BUNDLE.graph, changed(format=2)), "format 2 is not 1, which this release reads"),
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
        (Bundle(b"", policy_json()), "model.onnx is not valid: it holds no graph"),
        (Bundle(cartpole_graph(input="x").SerializeToString(), policy_json()), "model.onnx is not valid"),
        (Bundle(CARTPOLE_BUNDLE.graph, policy_json(spaces.Box(-1, 1, (3,)))), "model.onnx is not valid"),
        (
            Bundle(CARTPOLE_BUNDLE.graph, policy_json(CARTPOLE, spaces.Box(-2, 2, (1,)))),
            r"its actions have shape \(1,\), expected \(1, 1\)",
        ),
    ],
)
def test_a_bundle_that_does_not_fit_together_is_refused(bundle: Bundle, message: str) -> None:
    with pytest.raises(BundleInvalid, match=message):
        Policy.load(bundle)


def test_a_pickle_in_place_of_the_graph_is_never_loaded() -> None:
    with pytest.raises(BundleInvalid):
        Policy.load(Bundle(pickle.dumps(Bomb()), policy_json()))
    assert "antigravity" not in sys.modules


class Bomb:
    def __reduce__(self) -> Any:
        return __import__, ("antigravity",)
