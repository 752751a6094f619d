"""Chooses processes, threads and GPUs by the speed of an environment, the size of the network, and the machine."""

import contextlib
import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from gymnasium import spaces

from pipeline.config import BY_MACHINE, TrainConfig
from pipeline.environments.images import is_image
from pipeline.environments.make import Environment
from serving.policy.spaces import leaves
from serving.processes import available_cpus

#: Environments whose step takes at least so long are stepped in several processes. Ray's start, and handing over
#: episodes, cost more than these processes save below 0.1 to 0.2 ms.
SLOW_STEP_S = 0.5e-3

#: Networks with at least so many weights, and those that convolve images, compute on several threads or on a GPU.
LARGE_NETWORK = 1_000_000

#: A step is timed this often, or as often as fits into the time.
_STEPS, _TIME_S = 200, 0.5


def chosen(config: TrainConfig, environment: Environment, given: Mapping[str, Any]) -> tuple[TrainConfig, list[str]]:
    """Return a configuration with the settings of `BY_MACHINE` that are not given, and a sentence for each change."""
    notes = []
    for name in BY_MACHINE:
        if name not in given:
            settings, reason = _CHOICES[name](config, environment)
            config = replace(config, **settings)
            notes += [reason] if reason else []
    return config, notes


def step_seconds(environment: Environment) -> float:
    """Return the median time of a step with random actions, which the environment has been checked with before."""
    durations: list[float] = []
    with contextlib.closing(environment.make()) as made:
        made.action_space.seed(0)
        made.reset(seed=0)
        deadline = time.perf_counter() + _TIME_S
        while len(durations) < _STEPS and time.perf_counter() < deadline:
            action, begun = made.action_space.sample(), time.perf_counter()
            _, _, terminated, truncated, _ = made.step(action)
            durations.append(time.perf_counter() - begun)
            if terminated or truncated:
                made.reset()
    return statistics.median(durations)


def weights(config: TrainConfig, environment: Environment) -> int:
    """Return the approximate number of weights of the dense layers of a policy."""
    sizes = [spaces.flatdim(environment.observation_space), *config.hidden_units]
    networks = 1 if config.vf_share_layers else 2
    return networks * sum(first * second for first, second in pairwise(sizes))


def _env_runners(config: TrainConfig, environment: Environment) -> tuple[dict[str, Any], str]:
    """Choose a process per core for a slow environment; together they step as many environments as one process would.

    An environment with an implementation for many at once, and one that can exist once only, need no other process.
    """
    count = min(available_cpus(), config.num_envs_per_env_runner)
    is_single = environment.has_vector_entry_point or environment.is_exclusive
    if is_single or count == 1 or config.num_learners or config.rl_module != TrainConfig.rl_module:
        return {}, ""
    step_s = step_seconds(environment)
    if step_s < SLOW_STEP_S:
        return {}, ""
    each = config.num_envs_per_env_runner // count
    reason = f"Environments step in {count} processes, {each} in each: a step takes {step_s * 1000:.1f} ms"
    return {"num_env_runners": count, "num_envs_per_env_runner": each}, reason


def _gpus(config: TrainConfig, environment: Environment) -> tuple[dict[str, Any], str]:
    size = _size(config, environment)
    if not size or config.num_learners:
        return {}, ""
    import torch

    if not torch.cuda.is_available():
        return {}, ""
    return {"num_gpus_per_learner": 1.0}, f"Training learns on the GPU, {torch.cuda.get_device_name()}: {size}"


def _threads(config: TrainConfig, environment: Environment) -> tuple[dict[str, Any], str]:
    """Choose half of the cores: threads of torch that share cores with other processes wait for each other in loops."""
    size, count = _size(config, environment), available_cpus() // 2
    if not size or count <= 1 or config.num_gpus_per_learner:
        return {}, ""
    return {"torch_num_threads": count}, f"torch computes on {count} threads: {size}"


def _size(config: TrainConfig, environment: Environment) -> str:
    """Return why a network is large, or nothing if it is not, or if it is one of the user's own."""
    if config.rl_module != TrainConfig.rl_module:
        return ""
    if any(is_image(leaf.space) for leaf in leaves(environment.observation_space)):
        return "the network convolves images"
    number = weights(config, environment)
    return f"the network has {number:,} weights" if number >= LARGE_NETWORK else ""


_CHOICES = {"num_env_runners": _env_runners, "num_gpus_per_learner": _gpus, "torch_num_threads": _threads}
