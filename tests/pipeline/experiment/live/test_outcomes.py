"""The outcome of an episode, from raw tables as servers write them."""

import pytest

from pipeline.experiment.live.outcomes import Outcomes
from serving.experience.store import open_store
from tests.pipeline.experience.recording import (
    HASH,
    MODEL,
    NOW_NS,
    Decision,
    Feedback,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)

DAY = "2026-11-30"
HOUR_S = 3600.0


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


def decided(episode, at, step=0, **more):
    return Decision(episode, step, at, {"observations": [0.0] * 4}, {"action": 0}, **more)


def written(store, decisions=(), events=(), segment=0, version=3):
    tables = [decision_table(spec(version), list(decisions), segment=segment)] if decisions else []
    feedback = feedback_table(list(events), segment=segment) if events else None
    return write_segment(store, tables, feedback, segment, day=DAY)


def outcomes(store, since=10 * HOUR_S):
    found = Outcomes(store, MODEL, NOW_NS / 1e9 - since)
    found._since_ns, found._days = NOW_NS - int(since * 1e9), lambda: [DAY]
    found.update()
    return found


def returned(store, deadline=0.0, episode="a"):
    return outcomes(store).episodes[HASH(episode)].returned(NOW_NS - int(deadline * 1e9))


def test_the_reported_return_counts_and_the_last_one_of_several(store):
    written(store, [decided("a", 100)], [Feedback("a", 80, total=5.0), Feedback("a", 90, total=4.0, done="truncated")])
    assert returned(store) == 5.0


def test_what_is_reported_after_the_deadline_does_not_count(store):
    written(store, [decided("a", 100)], [Feedback("a", 80, total=5.0), Feedback("a", 90, total=4.0, done="truncated")])
    assert returned(store, deadline=85) == 4.0
    assert returned(store, deadline=95) is None


def test_without_a_return_the_sum_of_the_rewards_counts_once_the_end_is_reported(store):
    steps = [decided("a", 100), decided("a", 99, 1, previous_reward=1.0), decided("a", 98, 2, previous_reward=2.0)]
    written(store, steps, [Feedback("a", 97, rewards={2: 4.0})])
    assert returned(store) is None
    written(store, [], [Feedback("a", 96, done="terminated"), Feedback("a", 95, rewards={1: 20.0})], segment=1)
    assert returned(store) == 1.0 + 20.0 + 4.0


def test_a_decision_that_was_recorded_twice_has_its_reward_once(store):
    steps = [decided("a", 100), decided("a", 99, 1, previous_reward=1.0), decided("a", 98, 1, previous_reward=1.0)]
    written(store, steps, [Feedback("a", 96, done="terminated")])
    assert returned(store) == 1.0


def test_an_episode_begins_with_its_first_decision_in_whatever_order_segments_arrive(store):
    written(store, [decided("a", 50, 5)], segment=1, version=4)
    found = outcomes(store)
    written(store, [decided("a", 100)], segment=0, version=3)
    found.update()
    episode = found.episodes[HASH("a")]
    assert (episode.first_ns, episode.version) == (NOW_NS - 100 * 10**9, 3)


def test_a_second_look_reads_only_what_is_new(store):
    written(store, [decided("a", 100)], [Feedback("a", 90, total=1.0)])
    found = outcomes(store)
    written(store, [decided("b", 80)], segment=1)
    reads = []
    object.__setattr__(store, "read", lambda path, read=store.read: reads.append(path) or read(path))
    found.update()
    assert len(found.episodes) == 2
    assert [path for path in reads if "r1-0" in path] == []


def test_a_damaged_file_is_left_out_and_read_when_it_is_restored(store):
    path, *_ = written(store, [decided("a", 100)], [Feedback("a", 90, total=1.0)])
    content = store.read(path)
    store.write(path, content[:-10])
    found = outcomes(store)
    assert (found.episodes, found.damaged) == ({}, [path])
    store.write(path, content)
    found.update()
    assert (len(found.episodes), found.damaged) == (1, [])


def test_a_manifest_that_is_no_json_is_left_out(store):
    *_, path = written(store, [decided("a", 100)])
    store.write(path, b"{")
    assert outcomes(store).damaged == [path]


def test_decisions_long_before_the_experiment_and_those_without_an_episode_are_left_out(store):
    written(store, [decided("a", 11 * HOUR_S), decided(None, 100), decided("b", 100)])
    assert list(outcomes(store).episodes) == [HASH("b")]


def test_rewards_are_forgotten_once_the_return_is_known(store):
    steps = [decided("a", 100), decided("a", 99, 1, previous_reward=1.0)]
    written(store, steps, [Feedback("a", 90, total=1.0, done="terminated", rewards={1: 1.0})])
    assert outcomes(store).episodes[HASH("a")].rewards == []
