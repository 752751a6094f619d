"""A gradient that is not finite does not reach the weights."""

import torch

from pipeline.config import TrainConfig
from pipeline.rllib.trainer import Trainer

CONFIG = TrainConfig(train_batch_size_per_learner=100, minibatch_size=100, num_epochs=1)


def test_a_gradient_that_is_not_finite_leaves_the_weights_finite(cartpole):
    with Trainer(CONFIG, cartpole) as trainer:
        next(trainer.iterations())
        learner = trainer._algorithm.learner_group._learner  # there is no public access
        gradients = {key: torch.zeros_like(each) for key, each in learner._params.items()}
        next(iter(gradients.values()))[0] = torch.nan
        learner.apply_gradients(gradients)
        assert all(each.isfinite().all() for each in learner._params.values())
