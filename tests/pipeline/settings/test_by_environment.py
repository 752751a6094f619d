"""Settings are chosen by an environment's spaces and the length of its episodes."""

import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

from pipeline.environments.make import Environment
from pipeline.settings.by_environment import model_name, rules

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (64, 64, 3), np.uint8)
PLAIN = Environment("Some-v0", VECTOR, spaces.Discrete(2), None, has_vector_entry_point=False, time_limit=200)


def chosen(given=None, **environment):
    found = rules(dataclasses.replace(PLAIN, **environment), given or {})
    return {name: value for rule in found for name, value in rule.settings.items()}


def test_the_discount_follows_the_length_of_episodes():
    limits = (10, 100, 200, 500, 1000, 100_000, None)
    assert [chosen(time_limit=limit)["gamma"] for limit in limits] == [0.95, 0.98, 0.99, 0.996, 0.998, 0.999, 0.99]


def test_budget_and_evaluations_follow_the_length_of_episodes():
    assert [chosen(time_limit=limit)["max_env_steps"] for limit in (10, 200, 1000)] == [200_000, 400_000, 1_000_000]
    assert [chosen(time_limit=limit)["evaluation_interval"] for limit in (10, 200, 1000)] == [4096, 10_000, 50_000]


def test_other_settings_are_adapted_to_those_that_are_given():
    found = chosen({"max_env_steps": 20_000, "lr": 0.5})
    assert (found["lr_decay_steps"], found["lr_final"], found["evaluation_interval"]) == (20_000, 0.05, 2000)
    assert "lr" not in found
    assert chosen({"train_batch_size_per_learner": 20_000})["evaluation_interval"] == 40_000


def test_exploration_and_the_passes_over_a_batch_follow_the_spaces():
    discrete, continuous = chosen(), chosen(action_space=VECTOR)
    images = chosen(observation_space=spaces.Dict({"camera": IMAGE, "speed": VECTOR}))
    assert discrete["entropy_coeff"] > 0 == continuous["entropy_coeff"]
    assert images["num_epochs"] < discrete["num_epochs"]
    assert images["lr"] < discrete["lr"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ([-1, -0.07], [1, 0.07], "mean-std"),
        ([0, 0], [1, 1000], "mean-std"),
        ([-1, -30], [1, 30], "none"),
        ([-4.8, -np.inf], [4.8, np.inf], "none"),
        ([-4.8, np.finfo(np.float32).min], [4.8, np.finfo(np.float32).max], "none"),
    ],
)
def test_observations_far_from_1_are_filtered(low, high, expected):
    space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
    assert chosen(observation_space=space)["observation_filter"] == expected


def test_images_and_integers_are_not_filtered():
    space = spaces.Dict({"camera": IMAGE, "count": spaces.Box(0, 1000, (2,), np.int64), "tool": spaces.Discrete(3)})
    assert chosen(observation_space=space)["observation_filter"] == "none"


def test_a_rule_is_written_with_its_reason():
    first, *_ = [str(rule) for rule in rules(PLAIN, {}) if "gamma" in rule.settings]
    expected = "gamma 0.99, max_env_steps 400,000, evaluation_interval 10,000: episodes of at most 200 steps"
    assert first == expected


@pytest.mark.parametrize(
    ("env_id", "name"),
    [("reach:Reach-v0", "reach-v0-ppo"), ("ALE/Pong-v5", "ale-pong-v5-ppo"), ("gym:A_b-v1", "a_b-v1-ppo")],
)
def test_the_name_of_a_model_is_one_that_mlflow_accepts(env_id, name):
    assert model_name(env_id) == name
