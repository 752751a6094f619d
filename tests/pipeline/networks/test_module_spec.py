"""Model settings are RLlib's; a misspelt or ineffective one raises an error."""

import pytest
import torch

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.environments.errors import NoSuchObject, UnsupportedSpace
from pipeline.networks.errors import UnknownModelSetting
from pipeline.networks.module_spec import untrained


@pytest.mark.parametrize(
    ("model_config", "message"),
    [
        (
            '{"fcnet_hidens": [8]}',
            "model_config: 'fcnet_hidens' is not a model setting of RLlib; the nearest is 'fcnet_hiddens'.",
        ),
        (
            '{"lstm_cell_size": 8}',
            ("model_config: 'lstm_cell_size' has no effect: it requires \"use_lstm\": true. Omit it."),
        ),
        (
            '{"conv_filters": [[16, 4, 2]]}',
            (
                "model_config: 'conv_filters' has no effect: "
                "no observation is an image (height x width x channels). Omit it."
            ),
        ),
        (
            '{"use_lstm": true, "lstm_use_prev_action": true}',
            "model_config: 'lstm_use_prev_action' has no effect: RLlib's PPO ignores it. Omit it.",
        ),
    ],
)
def test_an_unknown_or_ineffective_setting_raises(cartpole, model_config, message):
    with pytest.raises(UnknownModelSetting) as caught:
        untrained(TrainConfig(model_config=model_config), cartpole)
    assert str(caught.value) == message


def test_settings_change_the_network():
    images = environments.describe("tests.pipeline.zoo:ChannelsFirst-v0")
    settings = '{"conv_filters": [[5, 4, 2]], "head_fcnet_hiddens": [7]}'
    module = untrained(TrainConfig(model_config=settings), images)
    convolution = next(each for each in module.modules() if isinstance(each, torch.nn.Conv2d))
    assert (convolution.in_channels, convolution.out_channels) == (3, 5)
    assert 7 in {each.out_features for each in module.pi.modules() if isinstance(each, torch.nn.Linear)}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "tests.pipeline.zoo:WithoutVelocities",
            "it is not a TorchRLModule with ValueFunctionAPI, which PPO requires.",
        ),
        ("nowhere:Module", "No module named 'nowhere'."),
    ],
)
def test_a_name_that_is_not_an_rlmodule_for_ppo_raises(cartpole, name, reason):
    with pytest.raises(NoSuchObject) as caught:
        untrained(TrainConfig(rl_module=name), cartpole)
    assert caught.value.reason == reason


def test_a_recurrent_policy_with_nested_actions_raises():
    nested = environments.describe("tests.pipeline.zoo:NestedActions-v0")
    with pytest.raises(UnsupportedSpace, match="RLlib's LSTM policies do not support Dict or Tuple actions"):
        untrained(TrainConfig(model_config='{"use_lstm": true}'), nested)
