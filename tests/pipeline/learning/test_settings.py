"""The settings of learning are checked, and survive a file."""

import pytest

from pipeline.config import TrainConfig
from pipeline.errors import InvalidConfig
from pipeline.learning.settings import LearningSettings
from pipeline.rllib.errors import RecurrentUnsupported


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("experience_versions", "3,x", "such as 3,4, or all"),
        ("experience_versions", "", "such as 3,4, or all"),
        ("unreported", "some", "refuse, keep or drop"),
        ("algorithm", "cql", "bc or marwil"),
        ("then", "bc", "none or ppo"),
        ("epochs", 0, "at least 1"),
        ("epochs_per_evaluation", 0, "at least 1"),
        ("beta", 1.5, "between 0 and 1"),
        ("beta", float("nan"), "between 0 and 1"),
        ("offline_lr", 0.0, "more than 0"),
    ],
)
def test_a_value_outside_of_its_range_is_rejected(name, value, expected):
    with pytest.raises(InvalidConfig, match=expected):
        LearningSettings("/data", **{name: value})


def test_versions_are_numbers_or_all():
    assert LearningSettings("/data").versions is None
    assert LearningSettings("/data", experience_versions="3, 4").versions == {3, 4}


def test_cloning_has_no_weight_of_advantages():
    assert LearningSettings("/data", beta=0.5).weight_of_advantages == 0.5
    assert LearningSettings("/data", beta=0.5, algorithm="bc").weight_of_advantages == 0


def test_the_settings_are_read_as_they_were_written():
    settings = LearningSettings("/data", algorithm="bc", then="ppo", epochs=7, scratch=True)
    assert LearningSettings.of(settings.as_params()) == settings


def test_a_recurrent_network_is_refused_before_anything_is_read():
    with pytest.raises(RecurrentUnsupported):
        LearningSettings("/data").check(TrainConfig(model_config='{"use_lstm": true}'))
