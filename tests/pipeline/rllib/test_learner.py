"""Learning in arrays computes RLlib's loss; gradients that are not finite do not reach the weights."""

import dataclasses
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing

from pipeline.config import TrainConfig
from pipeline.environments.make import describe
from pipeline.rllib import learner as learning
from pipeline.rllib.errors import GradientsNotFinite
from pipeline.rllib.trainer import Trainer

CONFIG = TrainConfig(train_batch_size_per_learner=100, minibatch_size=100, num_epochs=1)


def learner_of(trainer):
    return trainer._algorithm.learner_group._learner  # there is no public access


def minibatch_of(module, size=64):
    """Observations, and the actions, advantages and value targets that may belong to them."""
    observations = torch.from_numpy(np.stack([module.observation_space.sample() for _ in range(size)]))
    observations = observations.clamp(-1, 1)
    inputs = module.forward_exploration({Columns.OBS: observations})[Columns.ACTION_DIST_INPUTS]
    inputs = inputs + 0.5 * torch.randn_like(inputs)  # another policy has sampled
    policy = module.get_exploration_action_dist_cls().from_logits(inputs)
    actions = policy.sample()
    return {
        Columns.OBS: observations,
        Columns.ACTIONS: actions,
        Columns.ACTION_LOGP: policy.logp(actions),
        Columns.ACTION_DIST_INPUTS: inputs,
        Postprocessing.ADVANTAGES: torch.randn(size),
        Postprocessing.VALUE_TARGETS: 3 * torch.randn(size),
    }


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"use_kl_loss": True, "entropy_coeff": 0.01, "vf_clip_param": 2.0}, {"vf_share_layers": True}],
    ids=["defaults", "all terms", "shared layers"],
)
def test_losses_and_gradients_equal_those_of_rllib(env_id, settings):
    with Trainer(dataclasses.replace(CONFIG, env_id=env_id, **settings), describe(env_id)) as trainer:
        learner = learner_of(trainer)
        module = learner.module[DEFAULT_MODULE_ID]
        minibatch, outcomes = minibatch_of(module), []
        for compute in (
            lambda: learner.losses(module, minibatch).total,
            lambda: learner.compute_loss_for_module(
                module_id=DEFAULT_MODULE_ID,
                config=learner.config,
                batch=minibatch,
                fwd_out=module.forward_train(minibatch),
            ),
        ):
            module.zero_grad()
            total = compute()
            total.backward()
            outcomes.append([total.detach(), *(each.grad for each in module.parameters())])
        for ours, theirs in zip(*outcomes, strict=True):
            assert torch.equal(ours, theirs)
        with torch.no_grad():
            losses = learner.losses(module, minibatch)
        logged = learner.metrics.peek(DEFAULT_MODULE_ID)
        ours = [losses.policy, losses.value, losses.unclipped_value, losses.entropy, losses.kl]
        names = ["policy_loss", "vf_loss", "vf_loss_unclipped", "entropy", "mean_kl_loss"]
        assert [each.item() for each in ours] == [float(torch.as_tensor(logged[name]).detach()) for name in names]


def test_one_minibatch_changes_the_weights_as_rllibs_learner_does(cartpole):
    """Adam in one call rounds otherwise; rows that bootstrap values are left out of the same mean."""
    weights = []
    for name in ("arrays", "rllib"):
        with Trainer(dataclasses.replace(CONFIG, learning=name, lr=1e-3, lr_final=1e-3), cartpole) as trainer:
            episodes = trainer._algorithm.env_runner.sample(num_timesteps=400)
            rows = sum(len(episode) + 1 for episode in episodes)  # with those that bootstrap
            learner, data = learner_of(trainer), TrainingData(episodes=episodes)
            learner.update(training_data=data, timesteps={}, num_epochs=1, minibatch_size=rows)
            weights.append([each.detach().numpy() for each in learner._params.values()])
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_each_epoch_is_split_into_shuffled_minibatches_of_equal_sizes_without_bootstrapped_rows():
    has_loss = torch.arange(110) % 11 != 10
    rows = torch.arange(110)
    batch = {Columns.LOSS_MASK: has_loss, Columns.OBS: {"row": rows, "pair": torch.stack([rows, -rows], dim=1)}}
    minibatches = [each[Columns.OBS] for each in learning._minibatches(batch, num_epochs=3, minibatch_size=32)]
    assert [len(each["row"]) for each in minibatches] == [34, 33, 33] * 3
    epochs = [torch.cat([each["row"] for each in minibatches[start : start + 3]]) for start in (0, 3, 6)]
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, rows[has_loss])
        assert not torch.equal(epoch, rows[has_loss])
    assert not torch.equal(epochs[0], epochs[1])
    assert all(torch.equal(each["pair"][:, 0], each["row"]) for each in minibatches)


def test_a_batch_smaller_than_a_minibatch_is_one_minibatch():
    batch = {Columns.LOSS_MASK: torch.ones(3, dtype=torch.bool), Columns.OBS: torch.zeros(3, 4)}
    assert [len(each[Columns.OBS]) for each in learning._minibatches(batch, 2, 512)] == [3, 3]


def test_numbers_that_are_not_finite_are_left_out_of_clipped_gradients():
    parameter = torch.nn.Parameter(torch.zeros(4))
    parameter.grad = torch.tensor([torch.nan, torch.inf, 3.0, 4.0])
    assert not learning._clip([parameter], 1.0).isfinite()
    torch.testing.assert_close(parameter.grad, torch.tensor([0.0, 0.0, 0.6, 0.8]))


def test_recurrent_policies_learn_with_rllibs_loop(cartpole, monkeypatch):
    monkeypatch.setattr(learning.ArrayLearner, "learn", None)
    config = dataclasses.replace(CONFIG, model_config='{"use_lstm": true, "max_seq_len": 10}')
    with Trainer(config, cartpole) as trainer:
        assert "train/policy_loss" in next(trainer.iterations()).metrics


@pytest.mark.parametrize("name", ["arrays", "rllib"])
def test_a_gradient_that_is_not_finite_leaves_the_weights_finite(cartpole, caplog, name):
    with Trainer(dataclasses.replace(CONFIG, learning=name), cartpole) as trainer:
        next(trainer.iterations())
        learner = learner_of(trainer)
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
