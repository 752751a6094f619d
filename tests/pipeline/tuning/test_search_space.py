"""A YAML file defines the search space; an invalid one is rejected before anything starts."""

from pathlib import Path

import pytest
import yaml

import pipeline.tuning.search_space
from pipeline.config import TrainConfig
from pipeline.errors import InvalidConfig, UnknownSetting
from pipeline.tuning.errors import NotSearchable
from pipeline.tuning.search_space import SearchSpace

SHIPPED = yaml.safe_load(Path(pipeline.tuning.search_space.__file__).with_suffix(".yaml").read_text())


def test_the_first_trial_draws_nothing():
    space = SearchSpace.of(SHIPPED)
    assert space.config(1) == TrainConfig.of(SHIPPED["settings"])


def test_the_draws_of_trials_are_reproducible_and_differ():
    space = SearchSpace.of(SHIPPED)
    drawn = [space.draw(number) for number in range(2, 12)]
    assert drawn == [SearchSpace.of(space.as_content()).draw(number) for number in range(2, 12)]
    assert len({str(each) for each in drawn}) == len(drawn)
    assert all(3e-4 <= each["lr"] <= 1e-2 and each["gamma"] in {0.95, 0.98, 0.99} for each in drawn)


def test_a_range_of_whole_numbers_gives_whole_numbers():
    space = SearchSpace.of({"search": {"num_epochs": {"from": 1, "to": 64, "scale": "log"}}})
    drawn = [space.config(number).num_epochs for number in range(2, 40)]
    assert all(isinstance(each, int) for each in drawn)
    assert min(drawn) < 4
    assert max(drawn) > 16


def test_invalid_combinations_are_drawn_again():
    space = SearchSpace.of({"search": {"minibatch_size": [256, 2048], "train_batch_size_per_learner": [512, 4096]}})
    configs = [space.config(number) for number in range(2, 20)]
    assert {each.minibatch_size for each in configs} == {256, 2048}


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"serach": {}}, UnknownSetting, "There is no setting 'serach'; the nearest is 'search'."),
        ({"search": {"lamda": [0.9]}}, UnknownSetting, "There is no setting 'lamda'; the nearest is 'lambda_'."),
        ({"settings": {"learning_rate": 1}}, UnknownSetting, "the nearest is 'lr'."),
        ({"search": {"env_id": ["A-v0"]}}, NotSearchable, "'env_id' cannot be searched"),
        ({"search": {"gamma": [0.9, 1.5]}}, InvalidConfig, "gamma is 1.5, expected between 0 and 1."),
        ({"search": {"lr": ["fast"]}}, InvalidConfig, "lr is 'fast', expected a number."),
        ({"search": {"lr": 0.1}}, InvalidConfig, "lr is 0.1, expected a list of values, or {from: LOW, to: HIGH}"),
        ({"search": {"lr": []}}, InvalidConfig, "expected a list of values"),
        ({"search": {"lr": {"from": 1, "to": 0.1}}}, InvalidConfig, "expected from less than to"),
        ({"search": {"gamma": {"from": 0, "to": 1, "scale": "log"}}}, InvalidConfig, "above 0 on a log scale"),
        ({"search": ["lr"]}, InvalidConfig, "search is ['lr'], expected one NAME: VALUE per line."),
        ({"search": {"minibatch_size": [2048]}}, InvalidConfig, "expected at most train_batch_size_per_learner (1024)"),
    ],
)
def test_an_invalid_search_space_is_rejected(content, error, message):
    with pytest.raises(error) as caught:
        SearchSpace.of(content)
    assert message in str(caught.value)


def test_the_changed_settings_restore_the_configuration():
    config = SearchSpace.of(SHIPPED).config(5)
    settings = yaml.safe_load(yaml.safe_dump(config.changed()))
    assert TrainConfig.of(settings) == config
    assert len(settings) < 8
