"""A gradient that is not finite does not reach the weights, and training ends if no other comes."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from pipeline.config import TrainConfig
from pipeline.environments.make import describe
from pipeline.rllib.errors import GradientsNotFinite
from pipeline.rllib.trainer import Trainer

CONFIG = TrainConfig(train_batch_size_per_learner=100, minibatch_size=100, num_epochs=1)


def test_a_gradient_that_is_not_finite_leaves_the_weights_finite(cartpole, caplog):
    with Trainer(CONFIG, cartpole) as trainer:
        next(trainer.iterations())
        learner = trainer._algorithm.learner_group._learner  # there is no public access
        gradients = {key: torch.zeros_like(each) for key, each in learner._params.items()}
        first, second, *_ = gradients.values()
        first[0], second[0] = torch.nan, torch.inf
        learner.apply_gradients(gradients)
        assert all(each.isfinite().all() for each in learner._params.values())
        (optimizer,) = learner._named_optimizers.values()
        assert all(each["exp_avg_sq"].isfinite().all() for each in optimizer.state.values())
    assert "nan/inf" not in caplog.text


def test_training_ends_if_the_gradients_of_iterations_in_a_row_are_not_finite(caplog):
    message = r"PPO does not learn: .* 3 iterations in a row.* \(the mean return is 2e\+31\): scale them"
    with Trainer(CONFIG, describe("tests.zoo.numbers:LargeRewards-v0")) as trainer:
        iterations = trainer.iterations()
        assert len(list(itertools.islice(iterations, 2))) == 2
        with pytest.raises(GradientsNotFinite, match=message):
            next(iterations)
    assert "nan/inf" not in caplog.text


def test_iterations_without_a_sample_learn_nothing_and_are_not_counted(cartpole):
    lost = {"num_env_steps_sampled_lifetime": 0, "learners": {"default_policy": {"total_loss": math.nan}}}
    with Trainer(CONFIG, cartpole) as trainer:
        assert [trainer._iteration(lost, 1.0).sampled for _ in range(4)] == [0] * 4


def test_the_learner_learns_from_scaled_rewards_and_returns_are_not_scaled(cartpole):
    measured = {}
    for scale in (1.0, 0.01):
        with Trainer(replace(CONFIG, reward_scale=scale, train_batch_size_per_learner=1000), cartpole) as trainer:
            measured[scale] = next(trainer.iterations()).metrics
    one, hundredth = measured[1.0], measured[0.01]
    assert hundredth["train/value_loss"] < 0.01 * one["train/value_loss"]
    for name in ("train/return_mean_100", "train/rllib_episode_return_mean"):
        assert hundredth[name] == one[name] > 10
