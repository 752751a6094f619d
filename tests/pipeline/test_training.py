"""What a checkpoint brings back into training."""

import pytest

from pipeline.config import TrainConfig
from pipeline.training import Trainer

CONFIG = TrainConfig(train_batch_size_per_learner=800, minibatch_size=400, num_epochs=1)


@pytest.fixture(scope="module")
def before_and_after(tmp_path_factory, cartpole):
    """The iteration before a checkpoint and the returns then, and the same of another trainer that went on from it."""
    directory = tmp_path_factory.mktemp("checkpoint")
    with Trainer(CONFIG, cartpole) as trainer:
        before = next(trainer.iterations())
        returns = list(trainer.returns)
        trainer.save(directory)
    with Trainer(CONFIG, cartpole) as trainer:
        trainer.restore(directory, before.env_steps, returns)
        after = next(trainer.iterations())
        return before, returns, after, list(trainer.returns)


def test_the_running_mean_goes_on(before_and_after):
    before, returns, after, later_returns = before_and_after
    assert returns == later_returns[: len(returns)]
    assert 0 < len(returns) < len(later_returns)
    assert before.return_mean_100 == pytest.approx(sum(returns) / len(returns))
    assert after.return_mean_100 == pytest.approx(sum(later_returns) / len(later_returns))


def test_environment_steps_go_on(before_and_after):
    before, _, after, _ = before_and_after
    assert before.env_steps == before.sampled
    assert after.env_steps == before.env_steps + after.sampled
    assert after.sampled == pytest.approx(before.sampled, rel=0.1)
