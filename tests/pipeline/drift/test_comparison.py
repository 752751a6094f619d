"""Alarms: for what has changed, and rarely for what has not."""

import math

import gymnasium
import numpy as np
import pytest
from scipy import stats

from pipeline.drift.comparison import FIRST_STEP, compare
from pipeline.evaluation import evaluation
from pipeline.evaluation.player import Player
from pipeline.reference.reference import Reference, ReferenceRecorder
from pipeline.reference.sketches import Sketches, Steps
from tests.pipeline.drift.episodes import DIMENSIONS, QUANTILES, compared, episodes, sketched

REPETITIONS = 100


def most_false_alarms(alpha):
    """The count that is exceeded with a probability of 0.1% if each repetition alarms with `alpha`."""
    return int(stats.binom.ppf(0.999, REPETITIONS, alpha))


def alarming(comparison):
    return {(each.dimension, each.steps) for each in comparison.dimensions if each.ratio > 1}


def test_a_shifted_sensor_alarms_and_is_named():
    found = compared(0, shift=1.5)
    assert found.alarms
    assert ("0", "all steps") in alarming(found)
    assert found.dimensions[0].dimension == "0"
    assert found.dimensions[0].live_mean - found.dimensions[0].reference_mean == pytest.approx(1.5, abs=0.5)


def test_a_new_start_distribution_alarms_in_the_first_step():
    found = compared(0, start=4.0)
    assert found.alarms
    assert {steps for _, steps in alarming(found)} >= {FIRST_STEP}


def test_other_categories_alarm():
    found = compared(0, gears=(0.1, 0.1, 0.8))
    assert found.alarms
    assert {dimension for dimension, _ in alarming(found)} == {"gear"}
    assert math.isnan(found.dimensions[0].live_mean)


def test_the_same_source_does_not_alarm():
    found = compared(3)
    assert not found.alarms
    assert found.ratio < 1
    assert found.p_value > found.alpha


def test_the_same_seed_gives_the_same_result():
    first, second = compared(5, live=15), compared(5, live=15)
    assert first == second


def test_a_dimension_that_never_varies_has_no_threshold_until_it_does():
    made = episodes(np.random.default_rng(0), 60)
    for each in made:
        each.numbers[:, 1] = 3
    reference = Reference(DIMENSIONS, sketched(made[:30]), QUANTILES)
    same = {each.dimension: each for each in compare(reference, sketched(made[30:])).dimensions}
    assert math.isinf(same["1"].psi.threshold)
    assert same["1"].ratio == 0
    for each in made[30:]:
        each.numbers[:, 1] = 4
    assert ("1", "all steps") in alarming(compare(reference, sketched(made[30:])))


@pytest.mark.parametrize(("reference", "live"), [((40, 4), (40, 0)), ((100, 4), (15, 2)), ((60, 2), (5, 1))])
def test_an_observation_that_many_divisions_equal_does_not_alarm(reference, live):
    """Of so many episodes, some have another constant: rounding alone tells the equal statistics of divisions apart."""
    groups = [_constants(*reference), _constants(*live)]
    found = compare(Reference(DIMENSIONS[:1], groups[0], QUANTILES), groups[1], 0.05)
    assert not found.alarms
    assert found.p_value > 0.1


def test_equal_observations_in_all_episodes_do_not_alarm():
    found = compare(Reference(DIMENSIONS[:1], _constants(40, 0), QUANTILES), _constants(20, 0))
    assert (found.alarms, found.ratio, found.p_value) == (False, 0.0, 1.0)


def test_numbers_near_the_largest_float32_are_compared():
    generator = np.random.default_rng(0)
    groups = [
        Sketches.of([Steps(1, value[np.newaxis]) for value in values], DIMENSIONS[:1], QUANTILES)
        for values in (generator.normal(at, 0.1, (40, 1)).astype(np.float32) * np.float32(1e30) for at in (1, 2))
    ]
    found = compare(Reference(DIMENSIONS[:1], groups[0], QUANTILES), groups[1])
    assert {each.steps: each.distance.ratio > 1 for each in found.dimensions} == {"all steps": True, FIRST_STEP: True}
    assert [each.live_mean for each in found.dimensions] == [pytest.approx(2e30, rel=0.1)] * 2


def test_an_alarm_at_a_level_needs_enough_evidence():
    assert compared(2, shift=0.8, alpha=0.05).alarms
    assert not compared(2, shift=0.05, alpha=0.05).alarms


@pytest.mark.long
def test_no_change_alarms_at_most_at_the_default_level():
    found = sum(compared(seed, alpha=0.001).alarms for seed in range(REPETITIONS))
    assert found <= most_false_alarms(0.001)


@pytest.mark.long
@pytest.mark.parametrize(("live", "reference"), [(40, 40), (15, 100), (200, 20)])
@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_no_change_alarms_at_most_at_its_level(live, reference, alpha):
    alarms = sum(compared(seed, live, reference, alpha).alarms for seed in range(REPETITIONS))
    assert alarms <= most_false_alarms(alpha)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_cartpole_alarms_for_a_sensor_and_a_start_but_not_for_nothing(cartpole):
    assert alarms(cartpole, 10, sensor=0.05) == 10
    assert alarms(cartpole, 10, start=0.15) == 10
    assert alarms(cartpole, REPETITIONS) <= most_false_alarms(0.001)


def alarms(environment, repetitions, **changes):
    """How often 20 new episodes alarm against a new reference of 40."""
    found = 0
    for repetition in range(repetitions):
        reference = played(environment, 10_000 * repetition, 40)
        live = played(environment, 10_000 * repetition + 5000, 20, **changes).sketches
        found += compare(reference, live, seed=repetition).alarms
    return found


def played(environment, seed, count, sensor=0.0, start=None):
    """Play episodes of 100 steps, with an error of the sensor of the angle, or with starts within other bounds."""
    error = np.array([0, 0, sensor, 0], np.float32)

    def act(feeds):
        return {"action": ((feeds["observations"] + error) @ np.array([0.1, 0.2, 3.0, 1.0]) > 0).astype(np.int64)}

    class Start(gymnasium.Wrapper):
        def reset(self, *, seed=None, options=None):
            return self.env.reset(seed=seed, options={"low": -start, "high": start} if start else options)

    class Shortened:
        id, max_episode_steps = environment.id, 100

        @staticmethod
        def make():
            return gymnasium.wrappers.TimeLimit(Start(gymnasium.make("CartPole-v1").unwrapped), 100)

    recorder = ReferenceRecorder(environment.observation_space)
    player = Player(environment.observation_space, environment.action_space, act)
    evaluation.play(player, Shortened(), count, seed, lambda ids, rows: recorder(ids, [row + error for row in rows]))
    return recorder.reference()


def _constants(count, others):
    """Sketches of episodes of one step, of which some have another value."""
    values = np.arange(count) < others
    return Sketches.of([Steps(1, np.full((1, 1), value, np.float32)) for value in values], DIMENSIONS[:1], QUANTILES)
