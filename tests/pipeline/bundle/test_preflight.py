"""A configuration that cannot be trained or exported fails before training."""

import pytest

from pipeline.bundle import preflight
from pipeline.config import TrainConfig
from pipeline.environments.errors import EnvironmentNotFound, UnsupportedSpace
from pipeline.export.errors import ExportFailed
from pipeline.networks.errors import UnknownModelSetting


def test_the_default_configuration_passes():
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
    ],
)
def test_an_invalid_configuration_fails_with_the_reason(settings, error, message):
    with pytest.raises(error, match=message):
        preflight.export(TrainConfig.of(settings))
