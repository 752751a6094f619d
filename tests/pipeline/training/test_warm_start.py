"""Training starts from a registered policy only if spaces, network and filters fit."""

from types import SimpleNamespace

import pytest

from pipeline.training import warm_start
from pipeline.training.errors import CannotContinueFrom
from pipeline.training.warm_start import InitialPolicy

URI = "models:/cartpole-ppo/1"


class Trainer:
    """Loads weights, or raises as RLlib does for a network of another shape."""

    def __init__(self, *, is_filtered=False, fits=True):
        self.is_filtered, self._fits, self.loaded = is_filtered, fits, None

    def load_weights(self, checkpoint):
        if not self._fits:
            raise RuntimeError("size mismatch for pi.weight:\n  32 and 64")
        self.loaded = checkpoint


@pytest.fixture
def initial(tmp_path):
    (tmp_path / "env_runner" / "env_to_module_connector").mkdir(parents=True)  # of a policy without a filter
    return InitialPolicy(URI, None, tmp_path)


def test_the_weights_of_the_checkpoint_are_loaded(initial):
    trainer = Trainer()
    initial.load_into(trainer)
    assert trainer.loaded == initial.checkpoint


def test_a_network_of_another_shape_is_rejected_in_one_line(initial):
    with pytest.raises(CannotContinueFrom) as caught:
        initial.load_into(Trainer(fits=False))
    expected = (
        f"Training cannot start from {URI}: its network has another shape. size mismatch for pi.weight: 32 and 64"
    )
    assert str(caught.value) == expected


def test_a_filtered_training_is_rejected(initial):
    with pytest.raises(CannotContinueFrom, match="the statistics of a mean/std filter cannot be transferred"):
        initial.load_into(Trainer(is_filtered=True))


def test_other_spaces_are_rejected_with_the_difference(cartpole, pendulum, monkeypatch, tmp_path):
    policy = SimpleNamespace(observation_space=cartpole.observation_space, action_space=cartpole.action_space)
    monkeypatch.setattr(warm_start, "resolve", lambda uri: SimpleNamespace(pinned_uri=uri))
    monkeypatch.setattr(warm_start, "fetch", lambda _: None)
    monkeypatch.setattr(warm_start, "Policy", SimpleNamespace(load=lambda _: policy))
    with pytest.raises(CannotContinueFrom, match=r"its observation space is Box.*, that of Pendulum-v1 is Box.*"):
        warm_start.download(URI, pendulum, tmp_path)
