"""Settings are checked when they are given, not when training needs them."""

import pytest

from pipeline.config import TrainConfig
from pipeline.errors import InvalidConfig


def test_the_defaults_are_valid():
    config = TrainConfig()
    assert config.hidden_units == [64, 64]
    assert config.as_params()["env_id"] == "CartPole-v1"


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("max_env_steps", 0, "max_env_steps is 0, expected at least 1."),
        ("seed", -1, "seed is -1, expected at least 0."),
        ("evaluation_episodes", 0, "evaluation_episodes is 0, expected at least 1."),
        ("lr", 0.0, "lr is 0.0, expected more than 0."),
        ("lr", float("nan"), "lr is nan, expected more than 0."),
        ("gamma", 1.5, "gamma is 1.5, expected between 0 and 1."),
        ("lambda_", -0.1, "lambda_ is -0.1, expected between 0 and 1."),
        ("minibatch_size", 2048, "minibatch_size is 2048, expected at most train_batch_size_per_learner (1024)."),
        ("fcnet_hiddens", "64,x", "fcnet_hiddens is '64,x', expected whole numbers separated by commas, as 64,64."),
        ("fcnet_hiddens", "", "fcnet_hiddens is '', expected whole numbers separated by commas, as 64,64."),
        ("registered_model_name", "a/b", "registered_model_name is 'a/b', expected a name without / : @ and '."),
        ("registered_model_name", "", "registered_model_name is '', expected a name without / : @ and '."),
    ],
)
def test_a_setting_out_of_range_says_what_was_expected(setting, value, message):
    with pytest.raises(InvalidConfig) as caught:
        TrainConfig(**{setting: value})
    assert str(caught.value) == message
