"""Chooses settings by the spaces of an environment and the length of its episodes.

The rules are made for environments that nobody has tuned: they aim at training that works, not at the shortest one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from pipeline.config import TrainConfig
from pipeline.environments.action_adapters import is_integer
from pipeline.environments.images import is_image
from pipeline.environments.make import Environment
from pipeline.settings.probe import Probe, probed
from serving.policy.spaces import leaves

#: Environments that each process steps at once.
_NUM_ENVS = 16

#: The budget is this many of the longest episodes, between two bounds; and what it is if their length is unknown.
_EPISODES, _FEWEST_STEPS, _MOST_STEPS, _STEPS = 2000, 200_000, 1_000_000, 500_000

#: Bounds of gamma, and its value if the length of episodes is unknown.
_LOWEST_GAMMA, _HIGHEST_GAMMA, _GAMMA = 0.95, 0.999, 0.99

#: Observations whose bounds are within this range need no filter; larger bounds than the last are none.
_SMALLEST_SCALE, _LARGEST_SCALE, _UNBOUNDED = 0.1, 50.0, 1e30


#: The scale that discounted sums of rewards are brought to, where they are larger.
_VALUE = 2.0

#: The correlation of the noise of successive continuous actions.
_NOISE_CORRELATION = 0.9

#: The settings to which others are adapted if they are given.
ADAPTED_TO = ("train_batch_size_per_learner", "max_env_steps", "lr", "gamma")


@dataclass(frozen=True)
class Rule:
    """Settings that were chosen for one reason.

    Attributes:
        settings: The settings by name.
        reason: What the environment is like.
    """

    settings: Mapping[str, Any]
    reason: str

    def __str__(self) -> str:
        return f"{', '.join(f'{name} {_written(value)}' for name, value in self.settings.items())}: {self.reason}"


def rules(environment: Environment, given: Mapping[str, Any]) -> tuple[Rule, ...]:
    """Return the settings for an environment, without those that are given, which others are adapted to."""
    by_spaces = _by_spaces(environment)
    batch = given.get("train_batch_size_per_learner", by_spaces.settings["train_batch_size_per_learner"])
    by_episodes = _by_episodes(environment.time_limit, batch, given.get("max_env_steps"))
    budget = given.get("max_env_steps", by_episodes.settings["max_env_steps"])
    lr = given.get("lr", by_spaces.settings["lr"])
    schedule = Rule(
        {"lr_final": lr / 10, "lr_decay_steps": budget}, "the learning rate falls until the budget is spent"
    )
    probe = probed(environment, given.get("gamma", by_episodes.settings["gamma"]))
    scales = _by_rewards(probe), _by_observations(environment.observation_space, probe)
    found = (by_spaces, by_episodes, schedule, _by_noise(environment, given), *scales)
    remaining = (
        Rule({name: value for name, value in rule.settings.items() if name not in given}, rule.reason) for rule in found
    )
    return tuple(rule for rule in remaining if rule.settings)


def model_name(env_id: str) -> str:
    """Return the name of the registered model for an environment: `reach-v0-ppo` for `reach:Reach-v0`."""
    return re.sub(r"[^a-z0-9._]+", "-", env_id.rpartition(":")[2].lower()).strip("-") + "-ppo"


def _by_spaces(environment: Environment) -> Rule:
    is_continuous = environment.has_continuous_actions
    has_images = any(is_image(leaf.space) for leaf in leaves(environment.observation_space))
    actions = "continuous actions" if is_continuous else "discrete actions"
    settings: dict[str, Any] = {"num_envs_per_env_runner": _NUM_ENVS, "lambda_": 0.95}
    settings["entropy_coeff"] = 0.0 if is_continuous else 0.01
    if has_images:
        settings |= {"train_batch_size_per_learner": 2048, "minibatch_size": 256, "num_epochs": 4, "lr": 5e-4}
    else:
        settings |= {"train_batch_size_per_learner": 2048, "minibatch_size": 128, "num_epochs": 10, "lr": 1e-3}
    return Rule(settings, f"{actions}, {'images' if has_images else 'no images'}")


def _by_episodes(time_limit: int | None, batch: int, budget: int | None) -> Rule:
    """Return the settings that depend on the number of steps after which the environment cuts its episodes."""
    if time_limit is None:
        gamma, steps, interval = _GAMMA, _STEPS, _STEPS // 40
        reason = "the environment declares no time limit"
    else:
        gamma = round(min(max(1 - 4 / time_limit, _LOWEST_GAMMA), _HIGHEST_GAMMA), 4)
        steps = min(max(_EPISODES * time_limit, _FEWEST_STEPS), _MOST_STEPS)
        interval = 50 * time_limit
        reason = f"episodes of at most {time_limit:,} steps"
    interval = min(max(interval, 2 * batch), (budget or steps) // 10)
    return Rule({"gamma": gamma, "max_env_steps": steps, "evaluation_interval": max(1, interval)}, reason)


def _by_noise(environment: Environment, given: Mapping[str, Any]) -> Rule:
    """Return the correlation of the noise, which the sampling of arrays and a policy without memory can give."""
    space = environment.trained_action_space
    is_gaussian = isinstance(space, spaces.Box) and len(space.shape) == 1
    is_arrays = given.get("sampling", TrainConfig.sampling) == "arrays"
    is_recurrent = "use_lstm" in given.get("model_config", "")
    if not is_gaussian or not is_arrays or is_recurrent or given.get("rl_module", "default") != "default":
        return Rule({"noise_correlation": 0.0}, "the actions are not only one Box, or are not sampled as arrays")
    return Rule({"noise_correlation": _NOISE_CORRELATION}, "continuous actions that last for some steps explore more")


def _by_rewards(probe: Probe) -> Rule:
    """Return the factor by which a discounted sum of rewards becomes a number that a network learns within minutes."""
    if probe.value <= _VALUE:
        return Rule({"reward_scale": 1.0}, f"discounted returns of random actions are about {probe.value:.2g}")
    factor = float(f"{_VALUE / probe.value:.1g}")
    return Rule({"reward_scale": factor}, f"discounted returns of random actions are about {probe.value:.2g}")


def _by_observations(space: spaces.Space[Any], probe: Probe) -> Rule:
    """Return the filter for vectors whose elements are so small or so large that a network learns little from them."""
    if not isinstance(space, spaces.Box) or is_image(space) or is_integer(space):
        return Rule({"observation_filter": "none"}, "the observations are not one vector of floats")
    largest = np.maximum(np.abs(space.low), np.abs(space.high)).astype(np.float64)
    bounded = largest[largest < _UNBOUNDED]
    numbers = [*bounded, probe.largest] if probe.largest else list(bounded)
    smallest, largest_number = min(numbers, default=1.0), max(numbers, default=1.0)
    is_usual = smallest >= _SMALLEST_SCALE and largest_number <= _LARGEST_SCALE
    reason = f"observations are within bounds of {smallest:.2g} to {largest_number:.2g}"
    return Rule({"observation_filter": "none" if is_usual else "mean-std"}, reason)


def _written(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
