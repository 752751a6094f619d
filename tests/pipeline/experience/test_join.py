"""Whole episodes equal a truth that is computed on its own, whatever was late, repeated, lost or unknown."""

import random

import numpy as np
import pyarrow as pa
import pytest

from pipeline.experience.whole_episodes import WholeEpisodes
from tests.pipeline.experience.recording import (
    MODEL,
    Decision,
    Feedback,
    decision_table,
    feedback_table,
    spec,
    write_segment,
)
from tests.pipeline.experience.truth import truth


class Scenario:
    """Random episodes and reports, in which each moment occurs once."""

    def __init__(self, seed, episodes):
        self.random = random.Random(seed)
        self.moments = iter(self.random.sample(range(40_000_000), 60 * episodes + 100))
        self.decisions, self.feedback = [], []
        for number in range(episodes):
            self.episode(f"episode-{number}")
        for number in range(episodes // 10):
            self.feedback.append(Feedback(f"unknown-{number}", self.moment(), {0: 1.0}, done="terminated"))
        self.decisions += [self.decision(None, None) for _ in range(episodes // 10)]

    def moment(self):
        """Seconds before now: most of them long ago, some within the time that reports are waited for."""
        return next(self.moments) / 1000 / self.random.choice([1, 1, 1, 1000])

    def maybe(self, share, value):
        return value() if self.random.random() < share else None

    def decision(self, episode, step):
        return Decision(
            episode,
            step,
            self.moment(),
            {"observations": [float(self.random.randrange(1000)) for _ in range(4)]},
            {"action": self.random.randrange(5)},
            previous_reward=self.maybe(0.4, self.reward) if step else None,
            explored=self.random.random() < 0.5,
            logp=-self.random.randrange(8) / 4,
        )

    def reward(self):
        return self.random.randrange(-100, 100) / 4

    def episode(self, name):
        length = self.random.randrange(1, 12)
        without_steps = self.random.random()
        for step in range(length):
            if self.random.random() < 0.05:
                continue  # lost
            no_step = without_steps < 0.15 or (without_steps < 0.3 and self.random.random() < 0.3)
            self.decisions.append(self.decision(name, None if no_step else step))
            if self.random.random() < 0.1:
                self.decisions.append(self.decision(name, step))  # the client asked again
        for _ in range(self.random.randrange(5)):
            steps = self.random.sample(range(length + 1), self.random.randrange(length + 1))
            self.feedback.append(
                Feedback(
                    name,
                    self.moment(),
                    {step: self.reward() for step in steps},
                    total=self.maybe(0.2, self.reward),
                    length=self.maybe(0.2, lambda: self.random.randrange(length + 3)),
                    done=self.maybe(0.4, lambda: self.random.choice(["terminated", "truncated"])),
                    final=self.maybe(0.3, lambda: {"observations": np.full(4, self.reward(), np.float32)}),
                )
            )

    def record(self, store, segments):
        """Write the decisions and feedback in random order to segments, some of them twice."""
        self.random.shuffle(self.decisions)
        self.random.shuffle(self.feedback)
        for segment in range(segments):
            decisions, feedback = self.decisions[segment::segments], self.feedback[segment::segments]
            tables = [decision_table(spec(), decisions, segment=segment)] if decisions else []
            reports = feedback_table(feedback, segment=segment) if feedback else None
            write_segment(store, tables, reports, segment)
            if self.random.random() < 0.3:  # converted again, into files of another name
                write_segment(store, tables, reports, segment, replica="again")


def rows_of(table, names):
    columns = {
        name: table[name].cast(pa.int64()) if name in {"time", "start", "end"} else table[name] for name in names
    }
    return pa.table(columns).to_pylist()


def assert_is_truth(store, scenario, **options):
    """Compare all columns of all steps and summaries, and their order."""
    steps, summaries = truth(scenario.decisions, scenario.feedback, **options)
    whole = WholeEpisodes.open(store, MODEL)
    found = [row for table in whole.tables() for row in rows_of(table, next(iter(steps.values()))[0])]
    expected = [row for name in sorted(steps) for row in steps[name]]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.pop("propensity") == pytest.approx(other.pop("propensity"), rel=1e-6)
        assert one == other
    names = next(iter(summaries.values()))
    assert rows_of(whole.summary(), names) == [summaries[name] for name in sorted(summaries)]
    return expected


@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(5, 60))])
def test_whole_episodes_are_the_truth_in_any_order_with_any_repetition(store, compacted, seed):
    scenario = Scenario(seed, episodes=60)
    scenario.record(store, segments=scenario.random.randrange(1, 8))
    compacted(bucket_bytes=scenario.random.choice([10**9, 2000]))
    assert_is_truth(store, scenario)


def test_options_decide_about_rewards_and_ends_that_nobody_reported(store, compacted):
    scenario = Scenario(100, episodes=100)
    scenario.record(store, segments=3)
    compacted(reward_wait_s=10, default_reward=-2.5)
    assert_is_truth(store, scenario, reward_wait_s=10, default_reward=-2.5)


def test_the_number_of_buckets_does_not_change_the_episodes(store, compacted):
    scenario = Scenario(7, episodes=60)
    scenario.record(store, segments=3)
    compacted()
    one = pa.concat_tables(WholeEpisodes.open(store, MODEL).tables())
    assert len(WholeEpisodes.open(store, MODEL).parts) == 1
    compacted(bucket_bytes=4000)
    assert len(WholeEpisodes.open(store, MODEL).parts) > 10
    assert pa.concat_tables(WholeEpisodes.open(store, MODEL).tables()).equals(one)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_100_000_reports_late_twice_out_of_order_and_for_unknown_episodes(store, compacted):
    scenario = Scenario(1, episodes=47_000)
    assert len(scenario.feedback) > 95_000
    scenario.feedback += [
        Feedback(each.episode, each.at - 0.0001, each.rewards, each.total, each.length, each.done, each.final)
        for each in scenario.feedback[:5000]  # sent again
    ]
    assert len(scenario.feedback) > 100_000
    scenario.record(store, segments=40)
    compacted(bucket_bytes=2 * 2**20)
    assert len(assert_is_truth(store, scenario)) > 130_000
