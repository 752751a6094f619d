"""Acts at random in an environment, to learn the scale of its rewards and observations before a training."""

import contextlib
import math
import time
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from pipeline.environments.make import Environment
from pipeline.environments.nested_spaces import flatten

#: Random steps, or as many as fit into the time.
_STEPS = 300
_TIME_S = 0.5


@dataclass(frozen=True)
class Probe:
    """What random actions found in an environment.

    Attributes:
        value: The root mean square of the discounted sum of rewards; 0 without rewards.
        largest: The largest absolute number in the observations.
    """

    value: float = 0.0
    largest: float = 0.0


def probed(environment: Environment, gamma: float) -> Probe:
    """Return what random actions find, the same each time.

    Nothing is found in an environment that fails: its check reports that, or it masks actions, and random ones say
    little.
    """
    try:
        with contextlib.closing(environment.make()) as made:
            return _played(environment, made, gamma)
    except Exception:  # noqa: BLE001  # an environment may raise any exception
        return Probe()


def _played(environment: Environment, made: gymnasium.Env[Any, Any], gamma: float) -> Probe:
    deadline = time.monotonic() + _TIME_S
    made.action_space.seed(0)
    made.reset(seed=0)
    sums, discounted, largest = [0.0], 0.0, 0.0
    while len(sums) <= _STEPS and time.monotonic() < deadline:
        observation, reward, terminated, truncated, _ = made.step(made.action_space.sample())
        largest = max(largest, *(_largest(part) for part in flatten(environment.observation_space, observation)))
        discounted = gamma * discounted + float(reward)
        sums.append(discounted)
        if terminated or truncated:
            made.reset()
            discounted = 0.0
    return Probe(math.sqrt(sum(each**2 for each in sums) / len(sums)), largest)


def _largest(part: Any) -> float:
    return float(np.abs(np.asarray(part, np.float64)).max(initial=0.0))
