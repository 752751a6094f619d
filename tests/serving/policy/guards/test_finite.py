from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.policy.errors import OutputNotFinite
from serving.policy.guards.finite import check_finite, checked_outputs
from serving.policy.policy import Policy
from serving.policy.tensors import OBSERVATIONS, Rows
from tests.serving.failing import FAILING, FATAL_OBSERVATION
from tests.serving.policies import (
    CARTPOLE_BUNDLE,
    COUNTING_BUNDLE,
    EXPLORING_BUNDLE,
    ROBOT_BUNDLE,
    STEERING_BUNDLE,
)

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("bundle", "checked"),
    [
        (CARTPOLE_BUNDLE, ("action_dist_inputs",)),
        (STEERING_BUNDLE, ("action",)),
        (COUNTING_BUNDLE, ("state_out.sum", "state_out.steps", "action_dist_inputs")),
        (ROBOT_BUNDLE, ("action.drive", "action_dist_inputs")),
    ],
    ids=["Discrete", "Box", "recurrent", "nested"],
)
def test_float_actions_states_and_the_logits_of_other_actions_are_checked(
    bundle: Any, checked: tuple[str, ...]
) -> None:
    assert Policy.load(bundle).checked == checked


def test_without_logits_nothing_of_a_discrete_action_is_checked() -> None:
    assert checked_outputs(spaces.Discrete(2), ("action",)) == ()


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_action_must_be_finite(value: float, dtype: Any) -> None:
    actions = np.zeros((3, 2, 2), dtype)
    check_finite("action", actions)
    actions[2, 1, 0] = value
    with pytest.raises(
        OutputNotFinite, match=r"^the policy computed numbers that are not finite, in its output 'action'$"
    ):
        check_finite("action", actions)


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, 6e4])
def test_large_numbers_are_finite(value: float) -> None:
    check_finite("action", np.full((2, 3), value, np.float32))
    check_finite("action_dist_inputs", np.full((2, 3), value, np.float32))


@pytest.mark.parametrize(
    ("logits", "is_valid"),
    [([1, -INF], True), ([-INF, -INF], False), ([INF, 0], False), ([NAN, 0], False), ([-INF, NAN], False)],
)
def test_logits_of_masked_actions_are_minus_infinity(logits: list[float], *, is_valid: bool) -> None:
    rows = np.array([[0, 1], logits], np.float32)
    if is_valid:
        check_finite("action_dist_inputs", rows)
        return
    with pytest.raises(OutputNotFinite):
        check_finite("action_dist_inputs", rows)


def test_nan_logits_of_plain_observations_and_of_rows_are_an_error() -> None:
    policy = Policy.load(FAILING["output_not_finite"])
    fatal = np.array([[0, 0, 0, 0], FATAL_OBSERVATION], np.float32)
    for observations in (fatal, Rows.of(fatal)):
        with pytest.raises(OutputNotFinite, match="in its output 'action_dist_inputs'"):
            policy.act(observations)


def test_logits_that_a_request_does_not_ask_for_are_not_returned() -> None:
    no = np.zeros(1, np.bool_)
    answered = Policy.load(EXPLORING_BUNDLE).act(Rows({OBSERVATIONS: np.zeros((1, 4), np.float32)}, no, no))
    assert set(answered.tensors) == {"action"}
