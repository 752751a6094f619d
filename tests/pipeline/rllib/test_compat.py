"""Every private part of Ray and RLlib that is used exists; without it training works, or an error names the part."""

import contextlib
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from gymnasium import spaces
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.models.torch.heads import TorchFreeLogStdMLPHead
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.filter import RunningStat

from pipeline.config import TrainConfig
from pipeline.errors import RllibUnsupported
from pipeline.rllib import compat
from pipeline.rllib.env_runner import ArrayEnvRunner, RllibEnvRunner
from pipeline.rllib.learner import ArrayLearner, OneCheckLearner
from pipeline.rllib.trainer import Trainer, algorithm_config

CONFIG = TrainConfig(train_batch_size_per_learner=100, minibatch_size=100, num_epochs=1, num_envs_per_env_runner=2)

LOOK_AT = (
    f"Written for Ray 2.60.0, and this is {ray.__version__}. Compare pipeline/rllib/compat.py with {{}} in "
    "ray/rllib/env/{}.py: has the member another name or another meaning now?"
)


@pytest.mark.parametrize("member", compat._SAMPLING_MEMBERS)
def test_rllib_has_the_member_that_sampling_uses(member):
    known = {*dir(SingleAgentEnvRunner), *compat._names_in(SingleAgentEnvRunner.__init__), *dir(TorchRLModule)}
    assert member in known | {*compat._names_in(EnvRunner.__init__)}, LOOK_AT.format(member, "single_agent_env_runner")


@pytest.mark.parametrize("member", compat._LEARNING_MEMBERS)
def test_rllib_has_the_member_that_learning_uses(member):
    known = {*dir(PPOTorchLearner), *dir(TorchRLModule), *compat._names_in(PPOTorchLearner.update)}
    assert member in known, f"Written for Ray 2.60.0, and this is {ray.__version__}: see pipeline/rllib/compat.py"


def test_rllib_samples_with_the_method_that_is_overridden():
    called = compat._names_in(SingleAgentEnvRunner.sample)
    assert "_sample" in called, LOOK_AT.format("SingleAgentEnvRunner.sample", "single_agent_env_runner")


def test_rllib_stores_weights_with_ray_put():
    called = compat._names_in(EnvRunnerGroup.__init__)
    assert "put" in called, LOOK_AT.format("EnvRunnerGroup.__init__", "env_runner_group")


@pytest.mark.parametrize(
    ("owner", "member"),
    [
        (PPOCatalog, "_get_encoder_config"),
        (TorchFreeLogStdMLPHead, "_forward"),
        *((MeanStdFilter(), member) for member in ("_update_stats", "_filters")),
    ],
    ids=str,
)
def test_rllib_has_the_member(owner, member):
    assert hasattr(owner, member), (
        f"Written for Ray 2.60.0, and this is {ray.__version__}: see pipeline/rllib/compat.py"
    )


def test_a_frozen_filter_does_not_learn_from_what_it_filters():
    observation_filter = MeanStdFilter(update_stats=True)
    compat.freeze(observation_filter)
    assert observation_filter._update_stats is MeanStdFilter(update_stats=False)._update_stats is False


def test_a_filter_learns_from_a_batch_what_rllibs_learns_from_its_observations_one_by_one():
    space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    ours, theirs = MeanStdFilter(), MeanStdFilter()
    ours.input_observation_space = theirs.input_observation_space = space
    theirs.reset_state()
    for batch in np.random.default_rng(0).normal(50, [1, 2, 1000], (4, 5, 3)).astype(np.float32):
        normalized = compat.normalized(ours, batch)
        for observation in batch:
            theirs._filters[None](observation)
        expected = [theirs._filters[None](observation, update=False) for observation in batch]
        np.testing.assert_allclose(normalized, expected, rtol=1e-5)
        assert normalized.dtype == np.float32
    states = (each.get_state()[None]["running_stats"][0] for each in (ours, theirs))
    mine, other = map(RunningStat.from_state, states)
    assert mine.n == other.n == 20
    np.testing.assert_allclose(mine.mean, other.mean, rtol=1e-12)
    np.testing.assert_allclose(mine.std, other.std, rtol=1e-6)


def test_each_row_between_the_connector_pipelines_is_repeated():
    shared = {"memorized_map_structure": ["a", "b"]}
    compat.repeat_rows(shared, 2)
    assert shared == {"memorized_map_structure": ["a", "a", "b", "b"]}


@pytest.mark.parametrize(
    ("use", "part"),
    [
        (lambda: compat.freeze(object()), "MeanStdFilter._update_stats"),
        (lambda: compat.repeat_rows({}, 2), "shared_data['memorized_map_structure']"),
    ],
)
def test_what_verification_cannot_do_without_is_an_error_that_names_it(use, part):
    with pytest.raises(RllibUnsupported) as caught:
        use()
    assert str(caught.value).startswith(f"RLlib {ray.__version__} has no {part}. Install the version")


def test_a_missing_hook_for_encoders_is_a_warning(monkeypatch, caplog):
    compat.warn_without_custom_encoders()
    assert not caplog.records
    monkeypatch.setattr(compat, "PPOCatalog", object)
    compat.warn_without_custom_encoders()
    assert "has no Catalog._get_encoder_config: images are not convolved." in caplog.text


def test_training_in_one_process_starts_no_ray(cartpole):
    put = ray.put
    with Trainer(CONFIG, cartpole) as trainer:
        assert next(trainer.iterations()).sampled >= 100
        assert not ray.is_initialized(), LOOK_AT.format("each call of ray.put", "env_runner_group")
    assert ray.put is put


def runner_class(environment, **settings):
    return algorithm_config(TrainConfig(**settings), environment).env_runner_cls


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ArrayEnvRunner),
        ({"sampling": "arrays"}, ArrayEnvRunner),
        ({"sampling": "rllib"}, RllibEnvRunner),
        ({"observation_filter": "mean-std"}, ArrayEnvRunner),
        ({"observation_filter": "mean-std", "num_env_runners": 2}, RllibEnvRunner),
    ],
    ids=str,
)
def test_the_setting_selects_the_environment_runner(cartpole, settings, expected, caplog):
    assert runner_class(cartpole, **settings) is expected
    assert not caplog.records


def test_training_falls_back_to_rllibs_runner_when_a_private_member_is_missing(cartpole, monkeypatch, caplog):
    monkeypatch.setattr(compat, "_SAMPLING_MEMBERS", (*compat._SAMPLING_MEMBERS, "_renamed"))
    with Trainer(CONFIG, cartpole) as trainer:
        assert next(trainer.iterations()).sampled >= 100
        assert type(trainer._algorithm.env_runner) is RllibEnvRunner
    (message,) = [record.getMessage() for record in caplog.records if record.name == compat.__name__]
    assert message == (
        f"RLlib {ray.__version__} has no SingleAgentEnvRunner._renamed: training samples with RLlib's own environment "
        "runner, which is slower. --sampling rllib silences this warning."
    )


@pytest.mark.parametrize(("settings", "expected"), [({}, ArrayLearner), ({"learning": "rllib"}, OneCheckLearner)])
def test_the_setting_selects_the_learner(cartpole, settings, expected, caplog):
    assert algorithm_config(TrainConfig(**settings), cartpole).learner_class is expected
    assert not caplog.records


def test_training_falls_back_to_rllibs_learner_when_a_private_member_is_missing(cartpole, monkeypatch, caplog):
    monkeypatch.setattr(compat, "_LEARNING_MEMBERS", (*compat._LEARNING_MEMBERS, "_renamed"))
    assert algorithm_config(CONFIG, cartpole).learner_class is OneCheckLearner
    (message,) = [record.getMessage() for record in caplog.records if record.name == compat.__name__]
    assert message == (
        f"RLlib {ray.__version__} has no PPOTorchLearner._renamed: training learns with RLlib's own loop, which is "
        "slower. --learning rllib silences this warning."
    )


def test_a_removed_member_is_noticed(monkeypatch):
    assert compat.supports_custom_sampling()
    monkeypatch.delattr(SingleAgentEnvRunner, "_make_on_episode_callback")
    assert not compat.supports_custom_sampling()


def test_training_starts_a_ray_when_rllib_does_not_store_weights_with_ray_put(monkeypatch, caplog):
    """Ray itself starts in seconds; what it is started with is what matters here."""
    calls = []

    @contextlib.contextmanager
    def init(address, **_):
        calls.append(address)
        yield
        calls.append("shutdown")

    monkeypatch.setattr(compat, "EnvRunnerGroup", SimpleNamespace(__init__=lambda: None))
    monkeypatch.setattr(ray, "init", init)
    put = ray.put
    with caplog.at_level(logging.WARNING), compat.without_ray():
        assert ray.put is put
    assert calls == ["local", "shutdown"]
    assert "training starts a Ray" in caplog.text
