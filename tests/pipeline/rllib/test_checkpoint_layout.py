"""Network, filter and connectors are where this package looks for them in a checkpoint that RLlib writes."""

import pytest

from pipeline.config import TrainConfig
from pipeline.rllib import checkpoint_layout
from pipeline.rllib.trainer import Trainer

SETTINGS = {"train_batch_size_per_learner": 100, "minibatch_size": 100, "num_epochs": 1}


@pytest.fixture(scope="module", params=["none", "mean-std"])
def filtered_and_checkpoint(request, cartpole, tmp_path_factory):
    with Trainer(TrainConfig(observation_filter=request.param, **SETTINGS), cartpole) as trainer:
        next(trainer.iterations())
        trainer.save(checkpoint := tmp_path_factory.mktemp("checkpoint"))
        yield request.param != "none", trainer, checkpoint


def test_the_network_is_the_trained_one(filtered_and_checkpoint):
    _, trainer, checkpoint = filtered_and_checkpoint
    loaded = checkpoint_layout.load_module(checkpoint).state_dict()
    trained = trainer._algorithm.get_module().state_dict()
    assert trained.keys() <= loaded.keys()
    assert all((loaded[name] == trained[name]).all() for name in trained)


def test_the_filter_is_loaded_if_there_is_one(filtered_and_checkpoint):
    is_filtered, _, checkpoint = filtered_and_checkpoint
    assert (checkpoint_layout.load_filter(checkpoint) is not None) == is_filtered


def test_both_connectors_are_found(filtered_and_checkpoint):
    *_, checkpoint = filtered_and_checkpoint
    names = {each.name for each in checkpoint_layout.connectors(checkpoint).iterdir()}
    assert {"env_to_module_connector", "module_to_env_connector"} <= names


def test_connectors_at_the_top_level_are_found(tmp_path):
    """RLlib writes them there if no environment runner was local."""
    (tmp_path / "env_to_module_connector").mkdir()
    assert checkpoint_layout.connectors(tmp_path).samefile(tmp_path)
    assert checkpoint_layout.load_filter(tmp_path) is None
