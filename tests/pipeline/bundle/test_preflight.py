"""What cannot be exported is said before training begins."""

import pytest

from pipeline.bundle import preflight as export_trial
from pipeline.config import TrainConfig
from pipeline.environments.errors import EnvironmentNotFound, UnsupportedSpace
from pipeline.export.errors import ExportFailed
from pipeline.networks.errors import UnknownModelSetting


def test_what_can_be_exported_passes():
    export_trial.attempt(TrainConfig())


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"fcnet_activation": "nonsense"}, ExportFailed, "Unknown activation"),
        ({"env_id": "Nowhere-v0"}, EnvironmentNotFound, "Nowhere-v0"),
        ({"model_config": '{"use_lstn": true}'}, UnknownModelSetting, "the nearest is 'use_lstm'"),
        ({"env_id": "Taxi-v3", "observation_filter": "mean-std"}, UnsupportedSpace, "mean/std filter fails on it"),
    ],
)
def test_what_cannot_is_said(settings, error, says):
    with pytest.raises(error, match=says):
        export_trial.attempt(TrainConfig.of(settings))
