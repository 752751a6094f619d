from typing import Any

import numpy as np
import pytest

from serving.policy.bundle import Bundle
from serving.policy.guards.watchdog import Guard
from serving.policy.policy import Policy
from serving.policy.tensors import NOISE, OBSERVATIONS, STATE_IN, Tensors
from serving.rollout.trial.examination import examine
from tests.serving.failing import FAILING, FATAL_OBSERVATION
from tests.serving.policies import (
    CARTPOLE_BUNDLE,
    COUNTING_BUNDLE,
    EXPLORING_BUNDLE,
    ROBOT_BUNDLE,
    STEERING_BUNDLE,
)

LIVE = {OBSERVATIONS: np.array([[0, 0, 0, 0], FATAL_OBSERVATION], np.float32)}


def examined(bundle: Bundle, live: Tensors | None = None, limit_s: float = 0.5) -> tuple[str | None, list[Tensors]]:
    """What is wrong with a policy, and the inputs of its calls."""
    policy, calls = Policy.load(bundle, guard=Guard(0.3)), list[Tensors]()
    run = policy.run

    def spy(tensors: Tensors, outputs: Any) -> Tensors:
        calls.append(tensors)
        return run(tensors, outputs)

    policy.run = spy  # type: ignore[method-assign]
    return examine(policy, live or {}, 16, limit_s), calls


@pytest.mark.parametrize(
    "bundle",
    [CARTPOLE_BUNDLE, STEERING_BUNDLE, EXPLORING_BUNDLE, COUNTING_BUNDLE, ROBOT_BUNDLE],
    ids=["discrete", "box", "exploring", "recurrent", "nested"],
)
def test_nothing_is_wrong_with_a_good_policy(bundle: Bundle) -> None:
    found, calls = examined(bundle, LIVE)
    assert found is None
    assert {len(next(iter(tensors.values()))) for tensors in calls} >= {1, 16}


@pytest.mark.parametrize("bundle", [EXPLORING_BUNDLE, COUNTING_BUNDLE])
def test_it_computes_with_noise_and_without(bundle: Bundle) -> None:
    _, calls = examined(bundle)
    assert {NOISE in tensors for tensors in calls} == {True, False}


def test_it_computes_from_the_state_that_it_has_computed() -> None:
    _, calls = examined(COUNTING_BUNDLE)
    assert {float(tensors[STATE_IN + "steps"].max()) for tensors in calls} == {0, 1}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("output_not_finite", "the policy computed numbers that are not finite, in its output 'action_dist_inputs'"),
        ("inference_timeout", "the policy computed for longer than 0.3 s and was stopped"),
    ],
)
def test_a_fault_at_a_live_observation_is_found(code: str, reason: str) -> None:
    assert examined(FAILING[code])[0] is None
    assert examined(FAILING[code], LIVE)[0] == f"on an observation of its space, {reason}"


def test_live_observations_of_another_space_are_left_out() -> None:
    assert examined(STEERING_BUNDLE, LIVE)[0] is None


def test_a_policy_that_takes_too_long_is_found_before_it_has_computed_all() -> None:
    found, calls = examined(CARTPOLE_BUNDLE, limit_s=1e-9)
    assert found == "it takes 0.0 s of CPU for one observation, at most 1e-09 s fit"
    assert len(calls) == 1
