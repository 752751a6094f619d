"""Settings are validated when a configuration is made, not when training uses them."""

import pytest

from pipeline.config import TrainConfig
from pipeline.errors import InvalidConfig, UnknownSetting

UNITS = "whole numbers separated by commas, such as 64,64"
KWARGS = 'a JSON object, such as {"gravity": 9.8}'


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
        ("fcnet_hiddens", "64,x", f"fcnet_hiddens is '64,x', expected {UNITS}."),
        ("fcnet_hiddens", "", f"fcnet_hiddens is '', expected {UNITS}."),
        ("env_kwargs", "{size: 8}", f"env_kwargs is '{{size: 8}}', expected {KWARGS}."),
        ("env_kwargs", "[8]", f"env_kwargs is '[8]', expected {KWARGS}."),
        ("model_config", "1", """model_config is '1', expected a JSON object, such as {"use_lstm": true}."""),
        ("observation_filter", "mean", "observation_filter is 'mean', expected none or mean-std."),
        ("registered_model_name", "a/b", "registered_model_name is 'a/b', expected a name without / : @ and '."),
        ("registered_model_name", "", "registered_model_name is '', expected a name without / : @ and '."),
    ],
)
def test_a_value_out_of_range_is_rejected_with_the_expected_range(setting, value, message):
    with pytest.raises(InvalidConfig) as caught:
        TrainConfig(**{setting: value})
    assert str(caught.value) == message


def test_settings_by_name_are_converted_to_their_types():
    config = TrainConfig.of({"lr": "3e-3", "gamma": 1, "seed": 2.0, "target_return": "auto", "promote": True})
    assert (config.lr, config.gamma, config.seed, config.target_return, config.promote) == (0.003, 1.0, 2, None, True)
    assert TrainConfig.of(TrainConfig(target_return=3.0).as_params()) == TrainConfig(target_return=3.0)


@pytest.mark.parametrize("given", [{"gravity": 9.8}, '{"gravity": 9.8}'])
def test_env_kwargs_are_a_mapping_or_json(given):
    config = TrainConfig.of({"env_kwargs": given})
    assert config.environment_kwargs == {"gravity": 9.8}
    assert TrainConfig.of(config.as_params()) == config


def test_wrappers_are_separated_by_commas():
    assert TrainConfig().wrappers == ()
    assert TrainConfig(wrapper="a:B, c:D").wrappers == ("a:B", "c:D")


@pytest.mark.parametrize(
    ("name", "nearest"), [("lamda", "lambda_"), ("learning_rate", "lr"), ("num_workers", "num_env_runners")]
)
def test_an_unknown_setting_is_rejected_with_the_nearest_name(name, nearest):
    with pytest.raises(UnknownSetting) as caught:
        TrainConfig.of({name: 1})
    assert str(caught.value) == f"There is no setting '{name}'; the nearest is '{nearest}'."


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("seed", 1.5, "a whole number"),
        ("lr", "fast", "a number"),
        ("lr", True, "a number"),
        ("target_return", [1], "a number"),
        ("promote", "yes", "true or false"),
        ("env_id", 3, "text"),
    ],
)
def test_a_value_of_another_type_is_rejected_with_the_expected_type(setting, value, expected):
    with pytest.raises(InvalidConfig, match=f"expected {expected}"):
        TrainConfig.of({setting: value})
