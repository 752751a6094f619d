import json
from typing import Any

import pytest
from gymnasium import spaces

from serving.policy.errors import StateInvalid
from tests.serving.policies import (
    COUNTING_BUNDLE,
    EXPLORING_BUNDLE,
    ROBOT_BUNDLE,
    ROBOT_OBSERVATION,
    STEERING_BUNDLE,
    served,
)


def test_the_model_answer_tells_a_client_all_it_needs() -> None:
    model = served().description
    assert model["observation_space"]["low"][1] == "-inf"
    assert {key: model[key] for key in model if key != "observation_space"} == {
        "name": "cartpole-ppo",
        "version": 3,
        "model_uri": "models:/cartpole-ppo/Production",
        "stage": "Production",
        "run_id": "0123",
        "environment": {"id": "CartPole-v1", "kwargs": {}},
        "action_space": {"type": "Discrete", "n": 2, "start": 0},
        "explores": False,
        "recurrent": False,
        "evaluation": {"return_mean": 498.5},
        "loaded_at": "2023-11-14T22:13:20+00:00",
    }


def test_headers_name_the_version_in_ascii() -> None:
    headers = dict(served(name="käse ☃", version=12).headers)
    assert headers[b"x-model-name"] == b"k%C3%A4se %E2%98%83"
    assert headers[b"x-model-version"] == b"12"


def test_continuous_actions_are_answered_in_the_environments_space() -> None:
    steering = served(STEERING_BUNDLE)
    action = json.loads(steering.answer(b'{"observation": [0.0]}'))["action"]
    assert action == [0.0]
    assert spaces.Box(-2, 2, (1,)).shape == (len(action),)


def test_an_empty_batch_is_answered_without_the_policy() -> None:
    assert served().answer(b'{"observations": []}') == b'{"actions":[]}'


def answer(policy: Any, **request: Any) -> Any:
    return json.loads(policy.answer(json.dumps(request).encode()))


def test_nested_observations_get_nested_actions() -> None:
    robot = served(ROBOT_BUNDLE)
    action = {"drive": [0.5, -0.25], "flags": [[1, 0], [1, 1]], "mode": 5}
    assert answer(robot, observation=ROBOT_OBSERVATION) == {"action": action}
    assert answer(robot, observations=[ROBOT_OBSERVATION] * 2) == {"actions": [action] * 2}
    assert answer(robot, observations=[]) == {"actions": []}
    assert robot.description["action_space"]["spaces"]["mode"] == {"type": "Discrete", "n": 3, "start": 5}


def test_exploring_is_repeatable_with_a_seed() -> None:
    exploring, undecided = served(EXPLORING_BUNDLE), [0, 0, 0, 0]
    assert exploring.description["explores"]
    assert answer(exploring, observations=[undecided] * 50) == {"actions": [0] * 50}
    sampled = answer(exploring, observations=[undecided] * 50, explore=True, seed=3)
    assert set(sampled["actions"]) == {0, 1}
    assert answer(exploring, observations=[undecided] * 50, explore=True, seed=3) == sampled
    assert answer(exploring, observation=undecided, explore=True, seed=3) == {"action": sampled["actions"][0]}
    free = [answer(exploring, observation=undecided, explore=True)["action"] for _ in range(50)]
    assert set(free) == {0, 1}


def test_details_say_what_the_bundle_knows_of_an_action() -> None:
    found = answer(served(EXPLORING_BUNDLE), observation=[0, 0, 1, 0], details=True)
    assert found["action"] == 1
    assert found["details"] == {
        "action_dist_inputs": [0.0, 5.0],
        "action_logp": pytest.approx(-0.006715, abs=1e-5),
        "value": 1.0,
    }
    batch = answer(served(EXPLORING_BUNDLE), observations=[[0, 0, 1, 0]] * 2, details=True)
    assert batch == {"actions": [1, 1], "details": [found["details"]] * 2}
    assert answer(served(STEERING_BUNDLE), observation=[0.0], details=True) == {"action": [0.0], "details": {}}


def test_a_state_goes_from_answer_to_request() -> None:
    first = answer(served(COUNTING_BUNDLE), observation=[2])
    assert first.keys() == {"action", "state"}
    other_replica = served(COUNTING_BUNDLE)
    assert answer(other_replica, observation=[-1])["action"] == 0
    second = answer(other_replica, observation=[-1], state=first["state"])
    assert second["action"] == 1
    third = answer(served(COUNTING_BUNDLE), observation=[-2], state=second["state"], details=True)
    assert third["details"]["action_dist_inputs"] == [-1.0, *[3.0] * 6]


def test_states_of_a_batch_go_with_their_observations() -> None:
    counting = served(COUNTING_BUNDLE)
    first = answer(counting, observations=[[2], [-2]])
    assert first["actions"] == [1, 0]
    second = answer(counting, observations=[[-1], [-1], [1]], states=[*first["states"], None])
    assert second["actions"] == [1, 0, 1]
    assert answer(counting, observations=[]) == {"actions": [], "states": []}
    assert "state_reset" not in second


def test_after_a_promotion_an_old_state_begins_anew_and_the_answer_says_so() -> None:
    old, new = served(COUNTING_BUNDLE, version=3), served(COUNTING_BUNDLE, version=4)
    state = answer(old, observation=[5])["state"]
    found = answer(new, observation=[-1], state=state)
    assert (found["action"], found["state_reset"]) == (0, True)
    assert "state_reset" not in answer(new, observation=[-1], state=found["state"])
    batch = answer(new, observations=[[-1], [-1]], states=[state, None])
    assert (batch["actions"], batch["state_reset"]) == ([0, 0], [True, False])


def test_after_a_promotion_to_a_policy_without_state_there_is_none_any_more() -> None:
    state = answer(served(COUNTING_BUNDLE, version=3), observation=[5])["state"]
    assert answer(served(STEERING_BUNDLE, version=4), observation=[0.0], state=state) == {
        "action": [0.0],
        "state_reset": True,
    }


def test_a_state_of_this_version_that_it_did_not_write_is_refused() -> None:
    counting = served(COUNTING_BUNDLE)
    state = answer(counting, observation=[5])["state"]
    with pytest.raises(StateInvalid):
        answer(counting, observation=[5], state=state[:-6] + "AAAAA=")
