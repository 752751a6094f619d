"""Failures of environments end training with their own error, wherever they are sampled."""

import itertools
import logging
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from ray.exceptions import RayError
from ray.rllib.utils import actor_manager

from pipeline.config import TrainConfig
from pipeline.environments import contract
from pipeline.environments import make as environments
from pipeline.rllib import trainer as training
from pipeline.rllib.checked_sampling import CheckedVectorEnv, raise_failure, silence_repeated_failures
from pipeline.rllib.errors import EnvRunnerFailed, EnvRunnersLost
from pipeline.rllib.trainer import Iteration, Trainer, algorithm_config
from serving.errors import ExpectedError
from serving.policy.environments.errors import ContractBroken, EnvironmentRaised
from tests.workshop import free_port

SMALL = {"num_envs_per_env_runner": 2, "train_batch_size_per_learner": 64, "minibatch_size": 64, "num_epochs": 1}


def described(name, **settings):
    config = TrainConfig(env_id=f"tests.zoo.{name}-v0", **SMALL, **settings)
    return config, environments.of_config(config)


STUCK = "step 7 of episode 20 raised RuntimeError: the motor is stuck, at .*failing.py:"
NO_NUMBER = "step 1 of episode 20 returned the reward nan, expected a finite number"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("failing:StepRaisesLater", {}, STUCK),
        pytest.param("failing:StepRaisesLater", {"sampling": "rllib"}, STUCK, marks=pytest.mark.long),
        ("numbers:NanRewardsLater", {}, NO_NUMBER),
        pytest.param(
            "numbers:NanRewardsLater", {"model_config": '{"use_lstm": true}'}, NO_NUMBER, marks=pytest.mark.long
        ),
    ],
)
def test_a_failure_while_training_is_named(name, settings, message, caplog):
    with Trainer(*described(name, **settings)) as trainer, pytest.raises(ExpectedError, match=message):
        deque(itertools.islice(trainer.iterations(), 40), maxlen=0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], "RLlib logs it, too"


@pytest.mark.parametrize(
    "name",
    [
        "contract:DoubleObservations",
        pytest.param("contract:ArrayReward", marks=pytest.mark.long),
        pytest.param("contract:NumpyScalars", marks=pytest.mark.long),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_converted_trains_as_what_need_not_be(name):
    metrics = []
    for each in (name, "base:Behaved"):
        with Trainer(*described(each)) as trainer:
            metrics.append(dict(next(trainer.iterations()).metrics, **{"train/env_steps_per_second": 0}))
    assert metrics[0] == metrics[1]


class Vectors(CartPoleVectorEnv):
    """Fails in the fourth step, as its attribute says."""

    fails_with = "rewards"
    calls = 0

    def step(self, action):
        self.calls += 1
        observations, rewards, *rest = super().step(action)
        if self.calls == 4:
            if self.fails_with == "error":
                raise RuntimeError("no torque")
            {"observations": observations, "rewards": rewards}[self.fails_with][1] = np.nan
        return observations, rewards, *rest


@pytest.mark.parametrize(
    ("fails_with", "message"),
    [
        ("rewards", "step 4 of episode 1 in environment 1 returned the reward nan, expected finite numbers"),
        ("observations", "step 4 of episode 1 in environment 1 returned the observation nan, expected finite numbers"),
        ("error", "step of its vectorized form raised RuntimeError: no torque, at .*test_checked_sampling.py:"),
    ],
)
def test_vectorized_environments_are_checked(fails_with, message):
    vectors = Vectors(num_envs=3)
    vectors.fails_with = fails_with
    checked = CheckedVectorEnv(vectors, "Vectors-v0")
    checked.reset(seed=0)
    for _ in range(3):
        checked.step(np.zeros(3, np.int64))
    with pytest.raises(ExpectedError, match=message):
        checked.step(np.zeros(3, np.int64))


def test_episodes_of_vectorized_environments_are_counted():
    checked = CheckedVectorEnv(CartPoleVectorEnv(num_envs=2, max_episode_steps=3), "CartPole-v1")
    checked.reset(seed=0)
    for _ in range(5):
        observations, *_ = checked.step(np.zeros(2, np.int64))
    with pytest.raises(ContractBroken, match="step 1 of episode 2 in environment 0 returned the observation inf"):
        checked._check("observation", np.full_like(observations, np.inf))


@pytest.fixture
def runner():
    config = algorithm_config(*described("failing:StepRaisesLater")).copy(copy_frozen=False)
    runner = config.env_runner_cls(config=config, worker_index=0)
    yield runner
    runner.stop()


def test_a_remote_runner_keeps_the_failure_for_the_process_that_trains(runner):
    def fail(error):
        raise error

    assert runner.apply(lambda each: each.worker_index) == 0
    assert runner.failure is None
    with pytest.raises(RayError):
        runner.apply(lambda _: fail(RayError()))
    assert runner.failure is None
    with pytest.raises(ValueError, match="no"):
        runner.apply(lambda _: fail(ValueError("no\nnumber")))
    assert str(runner.failure) == "An environment runner failed: ValueError: no number"
    with pytest.raises(EnvironmentRaised):
        runner.apply(lambda each: [each.sample() for _ in range(100)])
    assert isinstance(runner.failure, EnvironmentRaised)


FAILURES = [EnvironmentRaised("E-v0", "reset", "OSError", ""), EnvRunnerFailed("KeyError", "a")]


@pytest.mark.parametrize("failure", FAILURES)
def test_the_first_failure_that_a_remote_runner_reports_is_raised(failure):
    def foreach_env_runner(function, **_):
        return [function(SimpleNamespace(failure=each)) for each in (None, failure)]

    with pytest.raises(type(failure)):
        raise_failure(SimpleNamespace(foreach_env_runner=foreach_env_runner))


def iteration(*, lost, sampled=0):
    return Iteration(100, sampled, lost, 0.0, {})


def test_losses_without_a_sample_end_training():
    losses = training._Losses()
    for restarts in range(3):
        losses.count(iteration(lost=1), restarts)
    losses.count(iteration(lost=1, sampled=100), 5)
    losses.count(iteration(lost=1), 5)
    with pytest.raises(EnvRunnersLost, match=r"All environment runners were lost 4 times within 0 s, without a sample"):
        losses.count(iteration(lost=1), 8)


def test_runners_that_do_not_come_back_end_training(monkeypatch):
    losses = training._Losses()
    losses.count(iteration(lost=1), 0)
    monkeypatch.setattr(training, "_MAX_LOST_S", -1.0)
    with pytest.raises(EnvRunnersLost):
        losses.count(iteration(lost=1), 0)


def test_runners_are_asked_for_failures_once_per_loss():
    losses = training._Losses()
    sequence = [(0, 0), (1, 0), (1, 0), (2, 0), (1, 1), (1, 1), (0, 2)]
    assert [losses.are_new(iteration(lost=lost), restarts) for lost, restarts in sequence] == [
        *(False, True, False, True, True, False, False)
    ]


def test_what_is_reported_in_one_line_is_not_logged_by_rllib(caplog):
    silence_repeated_failures()
    logger = logging.getLogger(actor_manager.__name__)
    logger.error("Ray error (ray::ArrayEnvRunner.apply() ...)")
    logger.error("the same again", exc_info=RayError())
    logger.error("Ray error (The actor died: out of memory), taking actor 1 out of service.")
    assert [record.getMessage()[:24] for record in caplog.records] == ["Ray error (The actor die"]


def test_where_one_environment_can_exist_training_releases_it_and_goes_on_in_other_episodes():
    kwargs = f'{{"port": {free_port()}}}'
    config = TrainConfig(
        env_id="tests.zoo.failing:OneOnly-v0", env_kwargs=kwargs, **SMALL | {"num_envs_per_env_runner": 1}
    )
    environment = contract.described(config, pytest.fail)
    assert environment.is_exclusive
    with Trainer(config, environment) as trainer:
        iterations = trainer.iterations()
        assert next(iterations).sampled == 64
        first = trainer._algorithm.env_runner.env.unwrapped.envs[0].unwrapped.observation
        with trainer.released():
            environment.make().close()
        assert next(iterations).env_steps == 128
        assert trainer._algorithm.env_runner.env.unwrapped.envs[0].unwrapped.observation is not first
