"""An evaluation depends only on the policy and the seeds, and plays every episode to its end."""

import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.environments import make as environments
from pipeline.errors import Interrupted
from pipeline.evaluation import evaluation
from pipeline.evaluation.evaluation import Evaluation
from pipeline.evaluation.player import Player
from pipeline.signals import deferred, immediate, interruptible
from serving.policy.environments.errors import ContractBroken
from serving.policy.errors import EnvironmentNotMade
from tests.workshop import free_port


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


@pytest.fixture
def zeros(player_of):
    """A function of an environment that returns a player whose action is always 0."""
    return lambda environment: player_of(environment, lambda batch: np.zeros(len(batch), np.int64))


def test_episodes_that_do_not_end_are_cut_and_the_notice_names_time_limit(zeros):
    environment = environments.describe("tests.zoo.endless:Endless-v0", max_episode_steps=50)
    result = evaluation.play(zeros(environment), environment, 4, 0)
    assert (result.cut, result.max_steps) == (4, 50)
    assert all(10 < each < 40 for each in result.returns)
    assert result.notice is not None
    assert result.notice.startswith("4 of 4 episodes did not end and were cut after 50 steps,")
    assert "gymnasium.wrappers.TimeLimit" in result.notice


@pytest.mark.parametrize(
    ("env_id", "kwargs", "wrappers"),
    [
        ("tests.zoo.base:Behaved-v0", {}, ()),
        ("tests.zoo.endless:Limited-v0", {}, ()),
        ("tests.zoo.endless:Endless-v0", {"max_episode_steps": 30}, ()),
        ("tests.zoo.endless:Endless-v0", {}, ("tests.zoo.endless:FortySteps",)),
        ("gym:CartPole-v1", {}, ()),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of the package gym
def test_an_environment_that_ends_its_episodes_is_not_cut(zeros, env_id, kwargs, wrappers):
    limit = 10 if wrappers or kwargs or "Limited" in env_id else 20
    environment = environments.describe(env_id, kwargs, wrappers, max_episode_steps=limit)
    assert evaluation.play(zeros(environment), environment, 3, 0).notice is None


def test_a_wrapper_that_hides_the_time_limit_does_not_hang_the_evaluation(zeros):
    wrappers = ["tests.zoo.endless:Unlimited"]
    environment = environments.describe("tests.zoo.endless:Limited-v0", wrappers=wrappers, max_episode_steps=35)
    result = evaluation.play(zeros(environment), environment, 2, 0)
    assert (result.cut, result.max_steps) == (2, 35)


def test_the_executor_counts_the_episodes_that_are_cut_too(build_policy):
    environment = environments.describe("tests.zoo.endless:Endless-v0", max_episode_steps=5)
    player = Player.exportable(build_policy(environment))
    with ThreadPoolExecutor(1) as executor:
        assert evaluation.play_in_halves(executor, player, environment, 6, 0).cut == 6


@pytest.mark.parametrize("env_id", ["tests.zoo.endless:Endless-v0", "tests.zoo.endless:SleepingStep-v0"])
def test_a_signal_interrupts_an_evaluation_at_once(zeros, env_id):
    environment = environments.describe(env_id, max_episode_steps=10**9)
    threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGTERM)).start()
    with pytest.raises(Interrupted), interruptible(), deferred(), immediate():
        evaluation.play(zeros(environment), environment, 2, 0)


@pytest.mark.parametrize(("name", "leaf"), [("InPlace", "observations"), ("NestedInPlace", "observations.numbers")])
def test_observations_that_an_environment_changes_in_place_are_copied(name, leaf):
    environment = environments.describe(f"tests.zoo.in_place:{name}-v0")
    player = Player(environment.observation_space, environment.action_space, lambda feeds: {"action": zeros_for(feeds)})
    observations = evaluation.observations(player, environment, 500, 0)[leaf]
    assert len(np.unique(observations, axis=0)) == 500


def zeros_for(feeds):
    return np.zeros(len(next(iter(feeds.values()))), np.int64)


def test_an_environment_that_can_exist_once_only_plays_the_same_episodes_one_after_the_other(zeros):
    several = environments.describe("tests.zoo.base:Behaved-v0")
    single = environments.describe("tests.zoo.failing:OneOnly-v0", {"port": free_port()})
    assert evaluation.play(zeros(single), single, 5, 3) == evaluation.play(zeros(several), several, 5, 3)
    assert len(evaluation.observations(zeros(single), single, 50, 0)["observations"]) == 50


def test_an_environment_that_cannot_be_made_is_not_evaluated(zeros):
    port = free_port()
    environment = environments.describe("tests.zoo.failing:OneOnly-v0", {"port": port})
    with socket.create_server(("127.0.0.1", port)), pytest.raises(EnvironmentNotMade, match="Address already in use"):
        evaluation.play(zeros(environment), environment, 3, 0)
