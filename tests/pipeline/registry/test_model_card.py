"""The model card states how the version was trained, how good it is, and how to query it."""

import json
import re

import numpy as np
import pytest

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.evaluation.evaluation import Evaluation
from pipeline.registry import model_card
from pipeline.registry.model_card import Method


def card(environment, target_return=475.0, method=None, **settings):
    return model_card.write(
        TrainConfig.of({"env_id": environment.id, **settings}),
        environment,
        Evaluation((400.0, 500.0), first_seed=0),
        run_id="run-1",
        commit="abc123",
        best_step=40_000,
        target_return=target_return,
        origin="models:/cartpole-ppo/3",
        method=method,
    )


def test_the_card_names_the_experience_that_was_learned_from(cartpole):
    text = card(cartpole, method=Method("MARWIL", "on 12 recorded episodes (300 steps) of versions 1, 2"))
    assert text.startswith("MARWIL policy for **CartPole-v1**")
    assert "**Training** on 12 recorded episodes (300 steps) of versions 1, 2, seed 0, starting from" in text
    assert "environment steps" not in text


def test_the_card_states_training_settings_and_evaluation(cartpole):
    text = card(cartpole, seed=7, fcnet_hiddens="32,16")
    for expected in (
        "`CartPole-v1`, 40,000 environment steps, seed 7, starting from `models:/cartpole-ppo/3`. Run `run-1`",
        "code `abc123`",
        "32-16 tanh network",
        "mean greedy return **450.0** over 2 episodes",
        "standard deviation 50.0, median 450.0, from 400.0 to 500.0",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("target_return", "verdict"),
    [
        (450.0, "The target return of 450 was reached."),
        (475.0, "The target return of 475 was **not reached**."),
        (None, "Training had no target return."),
    ],
)
def test_the_card_states_whether_the_target_return_was_reached(cartpole, target_return, verdict):
    assert verdict in card(cartpole, target_return)


def test_the_card_names_a_custom_module_and_its_settings(cartpole):
    text = card(cartpole, rl_module="tests.pipeline.zoo:TwoLayers", model_config='{"units": 16}')
    assert '`tests.pipeline.zoo:TwoLayers` (`{"units": 16}`) network' in text


def test_the_example_request_is_the_first_observation_of_an_episode(cartpole):
    observation = np.round(cartpole.make().reset(seed=0)[0].astype(float), 3).tolist()
    assert f"""-d '{{"observation": {observation}}}'""" in card(cartpole)


def test_floats_of_a_nested_example_are_rounded_and_integers_kept():
    text = json.dumps(model_card.example(environments.describe("tests.pipeline.zoo:Nested-v0")))
    arm = r'{"held": \[[01], [01]\], "position": \[(-?\d\.\d{1,3}(, )?){3}\], "tool": -?\d}'
    assert text.startswith('{"arm": ')
    assert re.search(arm, text)


def test_the_card_of_an_image_environment_fits_mlflows_limit():
    environment = environments.describe("tests.pipeline.zoo:Images-v0")
    text = card(environment)
    assert len(text) < 5000
    assert "curl -s http://127.0.0.1:8000/cartpole-ppo/model" in text


def test_the_query_is_sent_to_the_route_of_the_model(cartpole):
    text = card(cartpole, registered_model_name="my robot")
    assert "with `python -m serving run --model-uri 'models:/my robot/Production'` running" in text
    assert "curl -s http://127.0.0.1:8000/my-robot -d '" in text
