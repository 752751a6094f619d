"""Experience that nothing can be learned from is refused in one line, before a training begins."""

import json

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from pipeline.environments import make as environments
from pipeline.experience.errors import ExperienceDamaged, NoExperience, NotCompacted, VersionNotRecorded
from pipeline.experience.exports.errors import ObservationsNotRecorded, RewardsUnreported
from pipeline.experience.whole_episodes import WholeEpisodes
from pipeline.learning.errors import OtherSpaces, RewardsMissing, TooFewEpisodes, ValueInvalid
from pipeline.learning.recorded import Recorded
from pipeline.learning.settings import LearningSettings
from serving.experience.journal.records import DIGESTS, OMITTED
from serving.experience.store import open_store
from tests.pipeline.experience.exports.recorded import compacted, random_episode, record, whole_episodes
from tests.pipeline.experience.recording import MODEL

BOX, TWO = spaces.Box(-5, 5, (4,), np.float32), spaces.Discrete(2)


def truths(count=12, observation_space=BOX, action_space=TWO, **changes):
    return [random_episode(f"e{number}", observation_space, action_space, 6, **changes) for number in range(count)]


@pytest.fixture
def read(tmp_path, cartpole):
    """Return a function that records episodes and reads them as a training for CartPole does."""

    def read(found, observation_space=BOX, action_space=TWO, **settings):
        whole_episodes(tmp_path / "experience", found, observation_space, action_space, reward_wait_s=10)
        return again(**settings)

    def again(environment=cartpole, **settings):
        notes = []
        recorded = Recorded.read(LearningSettings(str(tmp_path / "experience"), **settings), environment, notes.append)
        return recorded, notes

    read.again = again
    return read


def test_the_episodes_are_read_with_their_final_observations(read):
    expected = {each.id: each for each in truths()}
    recorded, notes = read([*expected.values()])
    assert [each.id for each in recorded.episodes] == sorted(expected)
    for each in recorded.episodes:
        truth = expected[each.id]
        np.testing.assert_array_equal(each.all_observations[0], truth.observations)
        np.testing.assert_array_equal(each.actions[0], truth.actions)
        np.testing.assert_allclose(each.rewards, truth.rewards)
    facts = recorded.facts
    assert (facts.model, facts.versions, facts.episodes, facts.steps) == (MODEL, "1", 12, 72)
    assert facts.return_mean == pytest.approx(np.mean([sum(each.rewards) for each in expected.values()]))
    assert notes[0].startswith(f"12 recorded episodes (72 steps) of version 1 of '{MODEL}', mean return ")


def test_episodes_whose_end_nobody_reported_are_left_out_of_marwil_and_imitated_by_cloning(read):
    found = truths(14)
    for each in found[:3]:
        each.done = None
    recorded, notes = read(found)
    assert len(recorded.episodes) == 11
    assert notes[0].endswith("left out: 3 whose end nobody reported")
    recorded, _ = read.again(algorithm="bc")
    assert len(recorded.episodes) == 14


def test_only_the_chosen_versions_are_learned_from(read):
    found = [*truths(11), *(random_episode(f"f{number}", BOX, TWO, 6, version=2) for number in range(12))]
    recorded, _ = read(found, experience_versions="2")
    assert (recorded.facts.versions, len(recorded.episodes)) == ("2", 12)
    with pytest.raises(VersionNotRecorded, match="version 3"):
        read.again(experience_versions="3")


REFUSED = {
    "one episode": (
        lambda: truths(1),
        {},
        TooFewEpisodes,
        f"Only 1 episodes of '{MODEL}' can be learned from, expected at least 10. Let the server record more,",
    ),
    "unfinished episodes": (
        lambda: truths(12, done=None),
        {},
        TooFewEpisodes,
        "Only 0 episodes .* left out: 12 whose end nobody reported",
    ),
    "incomplete episodes": (
        lambda: truths(12, lost_steps={2}),
        {},
        TooFewEpisodes,
        "left out: 12 incomplete, as they lack decisions",
    ),
    "no rewards": (
        lambda: truths(reports_rewards=False),
        {},
        RewardsMissing,
        f"None of the 12 episodes of '{MODEL}' has a reported reward, and MARWIL learns from rewards.",
    ),
    "some rewards": (
        lambda: [*truths(11), random_episode("f", BOX, TWO, 6, reports_rewards=False)],
        {},
        RewardsUnreported,
        "1 of 12 episodes have steps without a reported reward. Pass --unreported drop",
    ),
}


@pytest.mark.parametrize(("make", "settings", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_too_little_is_refused(read, make, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        read(make(), **settings)
    assert "\n" not in str(caught.value)


def test_cloning_needs_no_rewards(read):
    recorded, _ = read(truths(reports_rewards=False), algorithm="bc")
    assert len(recorded.episodes) == 12


SPACES = {
    "longer observations": (spaces.Box(-5, 5, (5,), np.float32), TWO, r"its observation is obs of \(5,\) float32"),
    "float64 observations": (spaces.Box(-5, 5, (4,), np.float64), TWO, r"its observation is obs of \(4,\) float64"),
    "nested observations": (spaces.Dict(a=BOX), TWO, r"its observation is obs.a of \(4,\) float32, expected obs of"),
    "continuous actions": (BOX, spaces.Box(-1, 1, (1,), np.float32), r"its action is actions of \(1,\) float32"),
}


@pytest.mark.parametrize(("observation_space", "action_space", "message"), SPACES.values(), ids=SPACES)
def test_other_spaces_are_refused(read, observation_space, action_space, message):
    with pytest.raises(OtherSpaces, match=message) as caught:
        read(truths(12, observation_space, action_space), observation_space, action_space)
    assert f"The experience of '{MODEL}' does not fit CartPole-v1" in str(caught.value)


def test_an_action_outside_of_the_space_is_refused(read):
    found = truths(12, BOX, spaces.Discrete(3))
    found[0].actions[2] = 2
    with pytest.raises(ValueInvalid, match=r"the action in step \d+ of episode \w+ is 2, expected an element of Disc"):
        read(found, BOX, spaces.Discrete(3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(read, value):
    found = truths()
    found[4].observations[3] = np.array([0, value, 0, 0], np.float32)
    expected = rf"the observation in step 3 of episode {found[4].id} is \[ *0. {value} 0. 0.\], expected finite numbers"
    with pytest.raises(ValueInvalid, match=expected):
        read(found)


def test_a_reward_that_is_not_finite_is_refused_where_rewards_matter(read):
    found = truths()
    found[4].rewards[1] = np.nan
    with pytest.raises(ValueInvalid, match=f"the reward in step 1 of episode {found[4].id} is nan"):
        read(found)
    assert len(read.again(algorithm="bc")[0].episodes) == 12


@pytest.mark.parametrize(("flags", "setting"), [(DIGESTS, "digest"), (OMITTED, "none")])
def test_observations_that_were_not_recorded_are_refused(read, tmp_path, flags, setting):
    store, found = open_store(str(tmp_path / "experience")), truths()
    if flags == DIGESTS:
        for each in found:
            each.observations = [np.zeros(16, np.uint8)] * len(each.observations)
            each.reports_final = False
        record(store, found, spaces.Box(0, 255, (16,), np.uint8), TWO, flags=flags)
    else:
        record(store, found, BOX, TWO, flags=flags)
    compacted(store)
    with pytest.raises(ObservationsNotRecorded, match=f"experience_observations: {setting}"):
        read.again()


def test_a_cut_file_is_refused(read, tmp_path):
    read(truths())
    (part,) = (tmp_path / "experience").glob("episodes/**/part-*.parquet")
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(ExperienceDamaged, match="is damaged: its sha256 is not the one"):
        read.again()


def test_a_damaged_summary_of_files_is_refused(read, tmp_path):
    read(truths())
    (current,) = (tmp_path / "experience").glob("episodes/**/current.json")
    current.write_text(json.dumps({"format": 99}))
    with pytest.raises(ExperienceDamaged, match="it is not of format 1"):
        read.again()


def test_experience_that_is_missing_or_not_compacted_is_refused(read, tmp_path):
    with pytest.raises(NoExperience, match="there is no such directory"):
        read.again()
    record(open_store(str(tmp_path / "experience")), truths(), BOX, TWO)
    with pytest.raises(NotCompacted, match="Run: python -m pipeline experience compact"):
        read.again()


def test_actions_at_a_bound_are_named(read, tmp_path, pendulum):
    with gymnasium.make("Pendulum-v1") as made:
        both = made.observation_space, made.action_space
    found = truths(12, *both)
    for each in found:
        each.actions[:3] = [np.array([2.0], np.float32)] * 3
    whole_episodes(tmp_path / "experience", found, *both)
    _, notes = read.again(pendulum)
    assert notes[1] == "50.0% of the actions lie at a bound, where they may have been clipped: the bound is learned"
    assert isinstance(Recorded.read(LearningSettings(str(tmp_path / "experience")), pendulum).whole, WholeEpisodes)


def test_the_environment_of_other_ids_is_named(read):
    read(truths())
    with pytest.raises(OtherSpaces, match="does not fit Pendulum-v1"):
        read.again(environments.describe("Pendulum-v1"))
