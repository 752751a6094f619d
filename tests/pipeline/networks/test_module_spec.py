"""Model settings are RLlib's; what is misspelt or would not be read is refused."""

import pytest
import torch

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.environments.errors import NoSuchObject, UnsupportedSpace
from pipeline.networks import module_spec as networks
from pipeline.networks.errors import UnknownModelSetting


@pytest.mark.parametrize(
    ("model_config", "message"),
    [
        (
            '{"fcnet_hidens": [8]}',
            "model_config: 'fcnet_hidens' is none of RLlib's model settings; the nearest is 'fcnet_hiddens'.",
        ),
        (
            '{"lstm_cell_size": 8}',
            (
                "model_config: 'lstm_cell_size' would not be read: "
                'there is no LSTM without "use_lstm": true. Leave it out.'
            ),
        ),
        (
            '{"conv_filters": [[16, 4, 2]]}',
            (
                "model_config: 'conv_filters' would not be read: "
                "no observation is an image (height x width x channels). Leave it out."
            ),
        ),
        (
            '{"use_lstm": true, "lstm_use_prev_action": true}',
            "model_config: 'lstm_use_prev_action' would not be read: RLlib's PPO has no use for it. Leave it out.",
        ),
    ],
)
def test_a_setting_that_does_nothing_is_refused(cartpole, model_config, message):
    with pytest.raises(UnknownModelSetting) as caught:
        networks.untrained(TrainConfig(model_config=model_config), cartpole)
    assert str(caught.value) == message


def test_settings_reach_the_network():
    images = environments.describe("tests.pipeline.zoo:ChannelsFirst-v0")
    settings = '{"conv_filters": [[5, 4, 2]], "head_fcnet_hiddens": [7]}'
    module = networks.untrained(TrainConfig(model_config=settings), images)
    convolution = next(each for each in module.modules() if isinstance(each, torch.nn.Conv2d))
    assert (convolution.in_channels, convolution.out_channels) == (3, 5)
    assert 7 in {each.out_features for each in module.pi.modules() if isinstance(each, torch.nn.Linear)}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tests.pipeline.zoo:WithoutVelocities", "it is no TorchRLModule with ValueFunctionAPI, which PPO needs."),
        ("nowhere:Module", "No module named 'nowhere'."),
    ],
)
def test_an_rlmodule_that_is_none_is_refused(cartpole, name, reason):
    with pytest.raises(NoSuchObject) as caught:
        networks.untrained(TrainConfig(rl_module=name), cartpole)
    assert caught.value.reason == reason


def test_a_recurrent_policy_with_nested_actions_is_refused():
    nested = environments.describe("tests.pipeline.zoo:NestedActions-v0")
    with pytest.raises(UnsupportedSpace, match="RLlib's LSTM policies take no Dict or Tuple actions"):
        networks.untrained(TrainConfig(model_config='{"use_lstm": true}'), nested)
