"""What cannot be exported is said before training begins."""

import multiprocessing

import pytest

from pipeline.config import TrainConfig
from pipeline.errors import EnvironmentNotFound, ExportFailed, UnknownModelSetting, UnsupportedSpace
from pipeline.export_trial import ExportTrial


def test_what_can_be_exported_passes_and_leaves_no_process():
    with ExportTrial() as trial:
        trial.begin(TrainConfig())
        trial.await_success()
    assert not multiprocessing.active_children()


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
    with ExportTrial() as trial:
        trial.begin(TrainConfig.of(settings))
        with pytest.raises(error, match=says):
            trial.await_success()


def test_a_trial_that_dies_is_a_failed_one():
    with ExportTrial() as trial:
        trial.begin(TrainConfig())
        (process,) = multiprocessing.active_children()
        process.kill()
        with pytest.raises(ExportFailed, match="without a word"):
            trial.await_success()


def test_one_that_is_left_early_leaves_no_process():
    with ExportTrial() as trial:
        trial.begin(TrainConfig())
    assert not multiprocessing.active_children()
