import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.errors import BundleFileMissing, BundleInvalid, PolicyFailed
from serving.policy import Bundle, Policy
from tests.serving.policies import CARTPOLE, CARTPOLE_BUNDLE, STEERING_BUNDLE, WEIGHTS, cartpole_graph, policy_json


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
