"""A configuration that cannot be trained or exported fails before training."""

import pytest

from pipeline.bundle import preflight
from pipeline.config import TrainConfig
from pipeline.environments.errors import EnvironmentNotFound, UnsupportedSpace
from pipeline.errors import InvalidConfig
from pipeline.export.errors import ExportFailed
from pipeline.networks.errors import UnknownModelSetting

PENDULUM, NOISE = {"env_id": "Pendulum-v1"}, {"noise_correlation": 0.9}


@pytest.mark.parametrize("settings", [{}, {**PENDULUM, **NOISE}], ids=str)
def test_a_valid_configuration_passes(settings):
    preflight.check(TrainConfig.of(settings))


def test_the_default_configuration_can_be_exported():
    preflight.export(TrainConfig())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"fcnet_activation": "nonsense"}, ExportFailed, "Unknown activation"),
        ({"env_id": "Nowhere-v0"}, EnvironmentNotFound, "Nowhere-v0"),
        ({"model_config": '{"use_lstn": true}'}, UnknownModelSetting, "the nearest is 'use_lstm'"),
        (
            {"env_id": "Taxi-v3", "observation_filter": "mean-std"},
            UnsupportedSpace,
            "mean/std filter does not",
        ),
        ({"env_id": "CartPole-v1", **NOISE}, InvalidConfig, "noise_correlation is 0.9, expected 0, except for"),
        ({**PENDULUM, **NOISE, "model_config": '{"use_lstm": true}'}, InvalidConfig, "without use_lstm"),
        ({**PENDULUM, **NOISE, "sampling": "rllib"}, InvalidConfig, "with sampling arrays"),
    ],
)
def test_an_invalid_configuration_fails_with_the_reason(settings, error, message):
    with pytest.raises(error, match=message):
        preflight.export(TrainConfig.of(settings))
