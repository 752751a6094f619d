import json
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from serving.policy.bundle import Bundle
from serving.policy.errors import StateInvalid
from serving.replica.served_policy import ServedPolicy
from tests.serving.asking import answer, served
from tests.serving.policies import COUNTING_BUNDLE, EXPLORING_BUNDLE, ROBOT_BUNDLE, ROBOT_OBSERVATION, STEERING_BUNDLE


def test_continuous_actions_are_in_the_action_space() -> None:
    steering = served(STEERING_BUNDLE)
    action = json.loads(answer(steering, b'{"observation": [0.0]}'))["action"]
    assert action == [0.0]
    assert spaces.Box(-2, 2, (1,)).contains(np.array(action, np.float32))


def test_an_empty_batch_is_answered_without_the_policy() -> None:
    assert answer(served(), b'{"observations": []}') == b'{"actions":[]}'


def respond(policy: ServedPolicy, **request: Any) -> Any:
    return json.loads(answer(policy, json.dumps(request).encode()))


def test_nested_observations_get_nested_actions() -> None:
    robot = served(ROBOT_BUNDLE)
    action = {"drive": [0.5, -0.25], "flags": [[1, 0], [1, 1]], "mode": 5}
    assert respond(robot, observation=ROBOT_OBSERVATION) == {"action": action}
    assert respond(robot, observations=[ROBOT_OBSERVATION] * 2) == {"actions": [action] * 2}
    assert respond(robot, observations=[]) == {"actions": []}


def test_exploring_is_repeatable_with_a_seed() -> None:
    exploring, undecided = served(EXPLORING_BUNDLE), [0, 0, 0, 0]
    assert respond(exploring, observations=[undecided] * 50) == {"actions": [0] * 50}
    sampled = respond(exploring, observations=[undecided] * 50, explore=True, seed=3)
    assert set(sampled["actions"]) == {0, 1}
    assert respond(exploring, observations=[undecided] * 50, explore=True, seed=3) == sampled
    assert respond(exploring, observation=undecided, explore=True, seed=3) == {"action": sampled["actions"][0]}
    free = [respond(exploring, observation=undecided, explore=True)["action"] for _ in range(50)]
    assert set(free) == {0, 1}


def test_details_are_the_further_outputs_of_the_graph() -> None:
    found = respond(served(EXPLORING_BUNDLE), observation=[0, 0, 1, 0], details=True)
    assert found["action"] == 1
    assert found["details"] == {
        "action_dist_inputs": [0.0, 5.0],
        "action_logp": pytest.approx(-0.006715, abs=1e-5),
        "value": 1.0,
    }
    batch = respond(served(EXPLORING_BUNDLE), observations=[[0, 0, 1, 0]] * 2, details=True)
    assert batch == {"actions": [1, 1], "details": [found["details"]] * 2}
    assert respond(served(STEERING_BUNDLE), observation=[0.0], details=True) == {"action": [0.0], "details": {}}


def test_a_state_that_is_sent_back_continues_the_episode_on_any_replica() -> None:
    first = respond(served(COUNTING_BUNDLE), observation=[2])
    assert first.keys() == {"action", "state"}
    other_replica = served(COUNTING_BUNDLE)
    assert respond(other_replica, observation=[-1])["action"] == 0
    second = respond(other_replica, observation=[-1], state=first["state"])
    assert second["action"] == 1
    third = respond(served(COUNTING_BUNDLE), observation=[-2], state=second["state"], details=True)
    assert third["details"]["action_dist_inputs"] == [-1.0, *[3.0] * 6]


def test_each_state_of_a_batch_belongs_to_its_observation() -> None:
    counting = served(COUNTING_BUNDLE)
    first = respond(counting, observations=[[2], [-2]])
    assert first["actions"] == [1, 0]
    second = respond(counting, observations=[[-1], [-1], [1]], states=[*first["states"], None])
    assert second["actions"] == [1, 0, 1]
    assert respond(counting, observations=[]) == {"actions": [], "states": []}
    assert "state_reset" not in second


def test_after_a_promotion_an_old_state_is_reset_and_the_response_reports_it() -> None:
    old, new = served(COUNTING_BUNDLE, version=3), served(COUNTING_BUNDLE, version=4)
    state = respond(old, observation=[5])["state"]
    found = respond(new, observation=[-1], state=state)
    assert (found["action"], found["state_reset"]) == (0, True)
    assert "state_reset" not in respond(new, observation=[-1], state=found["state"])
    batch = respond(new, observations=[[-1], [-1]], states=[state, None])
    assert (batch["actions"], batch["state_reset"]) == ([0, 0], [True, False])


def test_after_a_promotion_to_a_policy_without_state_the_old_state_is_dropped() -> None:
    state = respond(served(COUNTING_BUNDLE, version=3), observation=[5])["state"]
    assert respond(served(STEERING_BUNDLE, version=4), observation=[0.0], state=state) == {
        "action": [0.0],
        "state_reset": True,
    }


def test_a_changed_state_is_rejected() -> None:
    counting = served(COUNTING_BUNDLE)
    state = respond(counting, observation=[5])["state"]
    with pytest.raises(StateInvalid):
        respond(counting, observation=[5], state=state[:-6] + "AAAAA=")


def test_a_state_of_another_bundle_with_the_same_name_and_version_is_not_read() -> None:
    state = respond(served(COUNTING_BUNDLE), observation=[5])["state"]
    description = json.loads(COUNTING_BUNDLE.policy) | {"versions": {"ray": "2.61.0"}}
    other = served(Bundle(COUNTING_BUNDLE.graph, json.dumps(description).encode()))
    found = respond(other, observation=[-1], state=state)
    assert (found["action"], found["state_reset"]) == (0, True)
