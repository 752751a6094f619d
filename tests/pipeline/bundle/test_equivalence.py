"""A graph is accepted only if its outputs differ from the policy's by less than their tolerances."""

import numpy as np
import onnx
import pytest
from gymnasium import spaces

from pipeline.bundle.equivalence import allows_action, check_equal, compare
from pipeline.bundle.errors import ExportDiffers
from pipeline.export.onnx_graph import to_onnx


@pytest.fixture(scope="module")
def cartpole_policy(build_policy, cartpole):
    return build_policy(cartpole)


@pytest.fixture(scope="module")
def cartpole_graph(cartpole_policy):
    return to_onnx(cartpole_policy)


@pytest.fixture
def observations():
    return {"observations": np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)}


def test_a_graph_with_other_weights_is_rejected(cartpole_policy, cartpole_graph, observations):
    model = onnx.load_from_string(cartpole_graph)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 2)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.001, weight.name))
    with pytest.raises(ExportDiffers, match="distribution inputs differ by"):
        check_equal(cartpole_policy, model.SerializeToString(), observations)


def test_a_graph_with_other_actions_is_rejected(cartpole_policy, cartpole_graph, observations):
    model = onnx.load_from_string(cartpole_graph)
    argmax = next(node for node in model.graph.node if node.op_type == "ArgMax")
    argmax.op_type = "ArgMin"
    with pytest.raises(ExportDiffers, match="actions differ by 1"):
        check_equal(cartpole_policy, model.SerializeToString(), observations)


@pytest.mark.parametrize(
    ("difference", "action", "accepted"),
    [(0.0, 1, True), (0.9e-5, 1, True), (1.1e-5, 1, False), (0.0, 0, False)],
)
def test_logits_have_a_tolerance_and_clear_choices_have_none(difference, action, accepted):
    expected = {"action": np.array([1]), "action_dist_inputs": np.array([[0.0, 0.5]])}
    found = {"action": np.array([action]), "action_dist_inputs": np.array([[difference, 0.5]])}
    if accepted:
        compare(spaces.Discrete(2), expected, found)
    else:
        with pytest.raises(ExportDiffers):
            compare(spaces.Discrete(2), expected, found)


def test_a_choice_between_almost_equal_logits_may_differ():
    logits = np.array([[0.5, 0.5 + 1.9e-5]])
    expected, found = ({"action": np.array([action]), "action_dist_inputs": logits} for action in (1, 0))
    compare(spaces.Discrete(2), expected, found)


@pytest.mark.parametrize(("difference", "accepted"), [(0.9e-4, True), (1.1e-4, False)])
def test_the_tolerance_of_a_bounded_action_is_a_fraction_of_its_range(difference, accepted):
    space = spaces.Box(-5, 5, (1,), np.float32)
    logits = np.zeros((1, 2))
    expected = {"action": np.array([[0.0]]), "action_dist_inputs": logits}
    found = {"action": np.array([[difference]]), "action_dist_inputs": logits}
    if accepted:
        compare(space, expected, found)
    else:
        with pytest.raises(ExportDiffers, match=r"actions differ by 1\.1e-05"):
            compare(space, expected, found)


LOWEST = np.finfo(np.float32).min

#: Logits of a choice of three, found instead of `expected`, and whether they are accepted.
MASKED = [
    ([0.0, 0.5, mask], [difference, 0.5, found], accepted)
    for mask, found in ((LOWEST, LOWEST), (-np.inf, -np.inf), (LOWEST, -np.inf), (-1e9, -1e9), (-1e9, -1e9 - 64))
    for difference, accepted in ((0.9e-5, True), (1.1e-5, False))
] + [
    ([0.0, 0.5, -np.inf], [0.0, 0.5, 0.4], False),
    ([0.0, 0.5, -np.inf], [0.0, 0.5, -200.0], False),
    ([0.0, 0.5, 0.4], [0.0, 0.5, -np.inf], False),
    ([0.0, 0.5, LOWEST], [0.0, LOWEST, LOWEST], False),
    ([0.0, 0.5, -1e9], [0.0, 0.5, -1.1e9], False),
    ([0.0, 0.5, -1e9], [0.0, 0.5, np.nan], False),
    ([0.0, 0.5, np.nan], [0.0, 0.5, np.nan], False),
    ([-np.inf] * 3, [-np.inf] * 3, True),
    ([LOWEST] * 3, [LOWEST, LOWEST, 0.0], False),
]


@pytest.mark.parametrize(("expected", "found", "accepted"), MASKED)
def test_masked_logits_are_compared_by_their_own_size_and_the_others_by_theirs(expected, found, accepted):
    unmasked = [[0.0, 0.1, 0.2]]
    both = [
        {
            "action": np.argmax([logits, *unmasked], axis=1),
            "action_dist_inputs": np.array([logits, *unmasked], np.float32),
        }
        for logits in (expected, found)
    ]
    if accepted:
        compare(spaces.Discrete(3), *both)
    else:
        with pytest.raises(ExportDiffers):
            compare(spaces.Discrete(3), *both)


def test_an_observation_without_an_allowed_choice_for_each_number_allows_no_action():
    space = spaces.MultiDiscrete([2, 2])
    logits = np.array([[0, 0, 0, -np.inf], [0, 0, -np.inf, -np.inf], [LOWEST, LOWEST, 1, 1], [0, -5e8, 3, 3]])
    assert allows_action(space, logits).tolist() == [True, False, False, True]
    assert allows_action(spaces.Box(-1, 1, (1,)), np.array([[-1e9, 0.0]])).tolist() == [True]
