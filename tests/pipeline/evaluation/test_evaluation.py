"""An evaluation depends only on the policy and the seeds, and plays every episode to its end."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.environments import make as environments
from pipeline.evaluation import evaluation
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.player import Player
from serving.policy.environments.errors import ContractBroken


def test_episodes_are_repeatable_and_differ_by_seed(cartpole, push_left):
    first, again, others = (evaluation.play(push_left, cartpole, 20, seed) for seed in (7, 7, 100))
    assert first == again
    assert first.returns != others.returns


def test_episode_i_does_not_depend_on_the_number_of_episodes(cartpole, push_left):
    assert evaluation.play(push_left, cartpole, 20, 7).returns[:5] == evaluation.play(push_left, cartpole, 5, 7).returns


def test_a_good_policy_reaches_the_time_limit(cartpole, balance):
    assert evaluation.play(balance, cartpole, 10, 0).returns == (500.0,) * 10


def test_continuous_actions_reach_the_environment_unchanged(pendulum, player_of):
    still = player_of(pendulum, lambda batch: np.zeros((len(batch), 1), np.float32))
    result = evaluation.play(still, pendulum, 3, 0)
    assert all(-2000 < value < 0 for value in result.returns)


def test_statistics_are_those_of_the_returns():
    result = Evaluation((1.0, 2.0, 6.0), first_seed=0)
    assert (result.mean, result.minimum, result.maximum, result.median) == (3.0, 1.0, 6.0, 2.0)
    assert result.std == pytest.approx(np.std([1, 2, 6]))
    assert str(result) == "3.0 +- 2.2 (minimum 1.0) over 3 episodes"


@pytest.mark.parametrize(("returns", "expected"), [((5.0, 5.0), True), ((5.0, 4.0), False)])
def test_returns_are_constant_if_all_are_equal(returns, expected):
    assert Evaluation(returns, first_seed=0).is_constant == expected


def test_the_executor_plays_the_second_half_of_the_seeds(cartpole, build_policy):
    submitted = []

    class Recorder(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            submitted.append(args[-2:])
            return super().submit(fn, *args, **kwargs)

    player = Player.exportable(build_policy(cartpole))
    with Recorder(1) as executor:
        halves = evaluation.play_in_halves(executor, player, cartpole, 5, first_seed=3)
    assert submitted == [(3, 5)]  # episodes, first seed
    assert halves == evaluation.play_in_halves(None, player, cartpole, 5, first_seed=3)


def test_observations_come_from_rollouts(cartpole, balance):
    observations = evaluation.observations(balance, cartpole, 1000, 0)["observations"]
    assert len(observations) == 1000
    assert observations.dtype == np.float32
    assert len(np.unique(observations, axis=0)) > 900


def test_observations_are_fewer_if_all_episodes_end_before(cartpole, push_left):
    assert 32 * 5 < len(evaluation.observations(push_left, cartpole, 10_000, 0)["observations"]) < 32 * 15


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("HugeRewards", "the episode with seed 7 has the return inf, expected a finite sum of rewards"),
        ("NanRewards", r"step 3 of episode 1 \(seed 7\) returned the reward nan, expected a finite number"),
    ],
)
def test_returns_that_are_not_finite_end_an_evaluation(player_of, name, message):
    environment = environments.describe(f"tests.zoo.numbers:{name}-v0")
    still = player_of(environment, lambda batch: np.zeros(len(batch), np.int64))
    with pytest.raises(ContractBroken, match=message):
        evaluation.play(still, environment, 3, 7)
