"""Training repeats itself with the same seed, and continues from a checkpoint."""

import dataclasses
import itertools

import numpy as np
import pytest
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

from pipeline.bundle import assemble as bundle
from pipeline.config import TrainConfig
from pipeline.rllib import learner
from pipeline.rllib.trainer import Trainer

CONFIG = TrainConfig(train_batch_size_per_learner=800, minibatch_size=400, num_epochs=1)


@pytest.fixture(scope="module")
def before_and_after(tmp_path_factory, cartpole):
    """The iteration and the returns before a checkpoint, and those of another trainer that continued from it."""
    directory = tmp_path_factory.mktemp("checkpoint")
    with Trainer(CONFIG, cartpole) as trainer:
        before = next(trainer.iterations())
        returns = list(trainer.returns)
        trainer.save(directory)
    with Trainer(CONFIG, cartpole) as trainer:
        trainer.restore(directory, before.env_steps, returns)
        after = next(trainer.iterations())
        return before, returns, after, list(trainer.returns)


def test_the_running_mean_continues_after_a_checkpoint(before_and_after):
    before, returns, after, later_returns = before_and_after
    assert returns == later_returns[: len(returns)]
    assert 0 < len(returns) < len(later_returns)
    assert before.return_mean_100 == pytest.approx(sum(returns) / len(returns))
    assert after.return_mean_100 == pytest.approx(sum(later_returns) / len(later_returns))


def test_environment_steps_continue_after_a_checkpoint(before_and_after):
    before, _, after, _ = before_and_after
    assert before.env_steps == before.sampled
    assert after.env_steps == before.env_steps + after.sampled
    assert after.sampled == pytest.approx(before.sampled, rel=0.1)


def trained(config, environment, directory):
    """The metrics of two iterations, and the actions of the policy after them."""
    with Trainer(config, environment) as trainer:
        iterations = list(itertools.islice(trainer.iterations(), 2))
        trainer.save(directory / bundle.CHECKPOINT_DIRECTORY)
    bundle.assemble(directory, environment)
    policy = bundle.load(directory)
    observations = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    # The speed differs between runs.
    metrics = [dict(each.metrics, **{"train/env_steps_per_second": 0}) for each in iterations]
    return metrics, [each.return_mean_100 for each in iterations], policy.act(observations)


def test_the_same_seed_gives_the_same_metrics_and_the_same_actions(cartpole, tmp_path):
    first, second, other = (
        trained(dataclasses.replace(CONFIG, seed=seed), cartpole, tmp_path / name)
        for seed, name in ((7, "first"), (7, "second"), (8, "other"))
    )
    assert first[:2] == second[:2]
    assert first[0] != other[0]
    np.testing.assert_array_equal(first[2], second[2])


def test_training_gives_the_same_numbers_as_rllibs_own_loops(cartpole, tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, learning="rllib")
    ours = trained(config, cartpole, tmp_path / "ours")
    monkeypatch.setattr(learner, "OneCheckLearner", PPOTorchLearner)
    theirs = trained(dataclasses.replace(config, sampling="rllib"), cartpole, tmp_path / "theirs")
    assert ours[:2] == theirs[:2]
    np.testing.assert_array_equal(ours[2], theirs[2])
