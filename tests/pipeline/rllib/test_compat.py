"""Every private part of Ray and RLlib that training uses exists, and training works when one is missing."""

import contextlib
import logging
from types import SimpleNamespace

import pytest
import ray
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from pipeline.config import TrainConfig
from pipeline.rllib import compat
from pipeline.rllib.env_runner import ArrayEnvRunner
from pipeline.rllib.trainer import Trainer, algorithm_config

CONFIG = TrainConfig(train_batch_size_per_learner=100, minibatch_size=100, num_epochs=1, num_envs_per_env_runner=2)

LOOK_AT = (
    f"Written for Ray 2.60.0, and this is {ray.__version__}. Compare pipeline/rllib/compat.py with {{}} in "
    "ray/rllib/env/{}.py: has the member another name or another meaning now?"
)


@pytest.mark.parametrize("member", compat._SAMPLING_MEMBERS)
def test_rllib_has_the_member_that_sampling_uses(member):
    known = {*dir(SingleAgentEnvRunner), *compat._names_in(SingleAgentEnvRunner.__init__)}
    assert member in known | {*compat._names_in(EnvRunner.__init__)}, LOOK_AT.format(member, "single_agent_env_runner")


def test_rllib_samples_with_the_method_that_is_overridden():
    called = compat._names_in(SingleAgentEnvRunner.sample)
    assert "_sample" in called, LOOK_AT.format("SingleAgentEnvRunner.sample", "single_agent_env_runner")


def test_rllib_stores_weights_with_ray_put():
    called = compat._names_in(EnvRunnerGroup.__init__)
    assert "put" in called, LOOK_AT.format("EnvRunnerGroup.__init__", "env_runner_group")


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
        ({"sampling": "rllib"}, SingleAgentEnvRunner),
        ({"observation_filter": "mean-std"}, SingleAgentEnvRunner),
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
        assert type(trainer._algorithm.env_runner) is SingleAgentEnvRunner
    (message,) = [record.getMessage() for record in caplog.records if record.name == compat.__name__]
    assert message == (
        f"RLlib {ray.__version__} has no SingleAgentEnvRunner._renamed: training samples with RLlib's own environment "
        "runner, which is slower. --sampling rllib silences this warning."
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
