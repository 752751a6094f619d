"""Processes, threads and GPUs that nobody asks for are chosen by the environment, the network and the machine."""

import dataclasses

import pytest
import torch

from pipeline.config import BY_MACHINE, TrainConfig
from pipeline.environments.make import describe
from pipeline.settings import by_machine

SLOW = "tests.zoo.slow:Slow-v0"
LARGE = {"fcnet_hiddens": "1024,1024"}


@pytest.fixture(autouse=True)
def cores(monkeypatch):
    """Set the number of cores that the choice sees; 4 by default."""

    def set_to(count):
        monkeypatch.setattr(by_machine, "available_cpus", lambda: count)

    set_to(4)
    return set_to


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def chosen(environment=None, given=(), **settings):
    config = TrainConfig(**settings)
    found, notes = by_machine.chosen(config, environment or describe(config.env_id), given)
    unchanged = dataclasses.replace(found, **{name: getattr(config, name) for name in BY_MACHINE})
    assert dataclasses.replace(unchanged, num_envs_per_env_runner=config.num_envs_per_env_runner) == config
    return found, notes


def test_a_slow_environment_steps_in_as_many_processes_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(by_machine, "step_seconds", lambda _: 0.0019)
    found, notes = chosen(env_id=SLOW)
    assert (found.num_env_runners, found.num_envs_per_env_runner) == (4, 4)
    assert notes == ["Environments step in 4 processes, 4 in each: a step takes 1.9 ms"]


def test_the_time_of_a_step_is_measured():
    assert by_machine.step_seconds(describe(SLOW)) >= 0.002


@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (1, {}),
        (4, {"num_envs_per_env_runner": 1}),
        (4, {"num_learners": 1}),
        (4, {"env_id": "tests.zoo.base:Behaved-v0"}),
        (4, {"env_id": "CartPole-v1"}),
    ],
    ids=["one core", "one environment", "remote learners", "fast", "vectorized"],
)
def test_other_trainings_step_in_the_main_process(cores, count, settings, monkeypatch):
    cores(count)
    monkeypatch.setattr(by_machine, "step_seconds", lambda described: 0.002 if described.id == SLOW else 0.0001)
    assert chosen(**{"env_id": SLOW, **settings}) == (TrainConfig(**{"env_id": SLOW, **settings}), [])


def test_an_environment_that_can_exist_once_only_steps_in_the_main_process():
    environment = dataclasses.replace(describe(SLOW), is_exclusive=True)
    assert chosen(environment, env_id=SLOW)[0].num_env_runners == 0


def test_a_large_network_computes_on_half_of_the_cores(cores):
    found, notes = chosen(**LARGE)
    assert found.torch_num_threads == 2
    assert notes == ["torch computes on 2 threads: the network has 2,105,344 weights"]
    cores(2)
    assert chosen(**LARGE)[0].torch_num_threads == 1


def test_a_network_for_images_computes_on_half_of_the_cores():
    assert chosen(env_id="tests.pipeline.zoo:Images-v0", num_envs_per_env_runner=1)[0].torch_num_threads == 2


def test_a_large_network_learns_on_the_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    found, notes = chosen(**LARGE)
    assert (found.num_gpus_per_learner, found.torch_num_threads) == (1.0, 1)
    assert notes == ["Training learns on the GPU, NVIDIA H200: the network has 2,105,344 weights"]
    assert chosen()[0].num_gpus_per_learner == 0
    assert chosen(**LARGE, num_learners=1)[0].num_gpus_per_learner == 0


def test_what_is_given_stays(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen(given=BY_MACHINE, env_id=SLOW, **LARGE) == (TrainConfig(env_id=SLOW, **LARGE), [])


def test_the_size_of_a_network_of_the_users_own_is_unknown():
    assert chosen(rl_module="a:B", **LARGE)[1] == []
