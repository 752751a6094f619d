"""Environments that break Gymnasium's contract: what `reset` and `step` take and return."""

from typing import Any

import gymnasium
import numpy as np

from tests.zoo.base import E


class ResetWithoutInfo(E):
    """`reset` returns the observation only, as gym's did before 0.26."""

    def reset(self, **arguments: Any) -> Any:
        return super().reset(**arguments)[0]


class ResetWithoutSeed(E):
    """`reset` takes no seed."""

    def reset(self, *, options: Any = None) -> Any:
        return super().reset(options=options)


class ResetWithoutOptions(E):
    """`reset` takes no options."""

    def reset(self, *, seed: Any = None) -> Any:
        return super().reset(seed=seed)


class ResetWithoutArguments(E):
    """`reset` takes neither seed nor options."""

    def reset(self) -> Any:
        return super().reset()


class ResetInfoNone(E):
    """`reset` returns None as info."""

    def reset(self, **arguments: Any) -> Any:
        return super().reset(**arguments)[0], None


class FourValues(E):
    """`step` returns four values, as gym's did before 0.26."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info


class StepInfoNone(E):
    """`step` returns None as info."""

    def step(self, action: Any) -> Any:
        return *super().step(action)[:4], None


class DoubleObservations(E):
    """Observations are float64, though their space is float32."""

    def next_observation(self) -> Any:
        return super().next_observation().astype(np.float64)


class IntegerObservations(E):
    """Observations are integers, though their space is float32."""

    def next_observation(self) -> Any:
        return np.zeros(2, np.int64)


class ListObservations(E):
    """Observations are lists."""

    def next_observation(self) -> Any:
        return super().next_observation().tolist()


class OutsideTheSpace(E):
    """Observations lie outside the bounds of their space."""

    def next_observation(self) -> Any:
        return super().next_observation() + np.float32(5)


class LongObservations(E):
    """Observations have three numbers, though their space has two."""

    def next_observation(self) -> Any:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)


class ArrayReward(E):
    """Rewards are arrays of shape (1,)."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, np.array([reward], np.float32), *rest


class NumpyScalars(E):
    """Reward, terminated and truncated are NumPy's scalars."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, np.float32(reward), np.bool_(terminated), np.bool_(truncated), info


class PairReward(E):
    """Rewards are arrays of two numbers."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, np.array([reward, reward], np.float32), *rest


class TextReward(E):
    """Rewards are text."""

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, "good", *rest


class NoneReward(E):
    """Rewards are None."""

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return observation, None, *rest


class TerminatedNone(E):
    """`terminated` is None."""

    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, None, truncated, info


class OwnRandomNumbers(E):
    """Draws observations from NumPy's global random state, which no seed of `reset` changes."""

    def next_observation(self) -> Any:
        return np.random.uniform(-1, 1, 2).astype(np.float32)  # noqa: NPY002


class WithoutSpaces(gymnasium.Env[Any, Any]):
    """Declares no spaces."""


class WithoutActionSpace(WithoutSpaces):
    """Declares an observation space only."""

    observation_space = E().observation_space


gymnasium.register("WithoutSpaces-v0", WithoutSpaces)
gymnasium.register("WithoutActionSpace-v0", WithoutActionSpace)
