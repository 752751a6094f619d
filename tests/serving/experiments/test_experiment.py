"""The state of an experiment."""

import json
from dataclasses import replace

import pytest

from serving.experience.episodes import NO_EPISODE, EpisodeHasher
from serving.experiments.assignment import CHALLENGER, CHAMPION
from serving.experiments.errors import ExperimentInvalid
from serving.experiments.experiment import Experiment, Step, tag_key

STEPS = (Step(100.0, 0.01), Step(200.0, 0.5))
EXPERIMENT = Experiment("e1", "salt", 3, 4, STEPS, 1000.0, settings={"alpha": 0.05})
EPISODES = [EpisodeHasher()(f"episode-{number}") for number in range(1000)]


def test_an_experiment_is_read_from_its_tag_as_it_was_written() -> None:
    assert Experiment.from_tag(EXPERIMENT.to_tag()) == EXPERIMENT
    ended = replace(EXPERIMENT, decision="roll_back")
    assert Experiment.from_tag(ended.to_tag()) == ended


@pytest.mark.parametrize(
    ("time_s", "share"), [(99.9, 0.0), (100.0, 0.01), (199.9, 0.01), (200.0, 0.5), (999.9, 0.5), (1000.0, 0.0)]
)
def test_the_share_is_that_of_the_last_step_and_0_before_the_first_and_after_the_end(
    time_s: float, share: float
) -> None:
    assert EXPERIMENT.share_at(time_s) == share
    assert replace(EXPERIMENT, decision="stopped").share_at(time_s) == 0.0


def test_an_episode_has_an_arm_while_the_experiment_runs() -> None:
    arms = [EXPERIMENT.arm(episode, 500.0) for episode in EPISODES]
    assert set(arms) == {CHAMPION, CHALLENGER}
    assert 400 < arms.count(CHALLENGER) < 600
    assert {EXPERIMENT.arm(episode, 50.0) for episode in EPISODES} == {None}
    assert EXPERIMENT.arm(NO_EPISODE, 500.0) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"champion": 4},
        {"champion": "3"},
        {"challenger": 0},
        {"salt": ""},
        {"id": 7},
        {"shares": []},
        {"shares": [[100.0, 0.5], [200.0, 0.1]]},
        {"shares": [[200.0, 0.1], [100.0, 0.5]]},
        {"shares": [[100.0, 0.0]]},
        {"shares": [[100.0, 1.5]]},
        {"shares": [[100.0]]},
        {"shares": [["soon", 0.5]]},
        {"expires_s": None},
        {"decision": 1},
        {"settings": []},
        {"more": 1},
    ],
    ids=str,
)
def test_a_tag_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    content = json.loads(EXPERIMENT.to_tag())
    with pytest.raises(ExperimentInvalid):
        Experiment.from_tag(json.dumps(content | changes))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '"text"', "{", '{"format": 1}'])
def test_a_tag_that_is_no_experiment_is_refused(text: str) -> None:
    with pytest.raises(ExperimentInvalid):
        Experiment.from_tag(text)


def test_an_experiment_that_mlflow_could_not_store_is_refused() -> None:
    with pytest.raises(ExperimentInvalid, match="MLflow stores 5000"):
        replace(EXPERIMENT, settings={"text": "x" * 5000}).to_tag()


def test_the_key_of_the_tag_names_the_stage_or_the_alias() -> None:
    assert tag_key(stage="Production") == "experiment.stage.Production"
    assert tag_key(alias="champion") == "experiment.alias.champion"
    assert tag_key() is None
