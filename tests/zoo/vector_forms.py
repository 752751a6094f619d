"""Environments whose vectorized form differs from the single one, and arguments that vectorizing takes."""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from tests.zoo.base import EPISODE_STEPS, E


class Vector(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """The vectorized form of `E`: with one environment it returns what `E` returns, and resets in the next step."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    single_observation_space: spaces.Space[Any] = spaces.Box(-1, 1, (2,), np.float32)
    single_action_space: spaces.Space[Any] = spaces.Discrete(2)

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.episode_steps = np.zeros(num_envs, np.int64)
        self.was_done = np.zeros(num_envs, np.bool_)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.episode_steps[:] = 0
        self.was_done[:] = False
        self.observations = self.next_observations()
        return self.observations, {}

    def step(self, actions: Any) -> tuple[Any, ...]:
        rewards = (np.asarray(actions) == (self.observations[:, 0] > 0)).astype(np.float64)
        rewards[self.was_done] = 0
        self.episode_steps = np.where(self.was_done, 0, self.episode_steps + 1)
        self.observations = self.next_observations()
        self.was_done, truncated = self.ends()
        return self.observations, rewards, self.was_done.copy(), truncated, {}

    def ends(self) -> tuple[Any, Any]:
        """Return which episodes terminate and which are truncated."""
        return self.episode_steps == EPISODE_STEPS, np.zeros(self.num_envs, np.bool_)

    def next_observations(self) -> Any:
        """Return two random numbers for each environment."""
        return self.np_random.uniform(-1, 1, (self.num_envs, 2)).astype(np.float32)


class Vectorized(E, vector_entry_point=Vector):
    """Has a vectorized form that does not differ."""


class _SameStepVector(Vector):
    """Resets in the step that ends an episode."""

    def step(self, actions: Any) -> tuple[Any, ...]:
        result = super().step(actions)
        if result[2].any():
            self.episode_steps[:], self.was_done[:] = 0, False
            return self.next_observations(), *result[1:]
        return result


class _DeclaredSameStepVector(_SameStepVector):
    """The same, and says so."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}


class SameStep(E, vector_entry_point=_DeclaredSameStepVector):
    """Its vectorized form resets in the step that ends an episode."""

    vector = _DeclaredSameStepVector


class UndeclaredSameStep(E, vector_entry_point=_SameStepVector):
    """Its vectorized form resets in the step that ends an episode, and declares the next step."""


class _UndeclaredVector(Vector):
    metadata: ClassVar[dict[str, Any]] = {}


class Undeclared(E, vector_entry_point=_UndeclaredVector):
    """Its vectorized form does not declare when it resets."""


class _NeverResettingVector(Vector):
    def ends(self) -> tuple[Any, Any]:
        return self.episode_steps >= EPISODE_STEPS, np.zeros(self.num_envs, np.bool_)

    def step(self, actions: Any) -> tuple[Any, ...]:
        self.was_done[:] = False
        return super().step(actions)


class NeverResetting(E, vector_entry_point=_NeverResettingVector):
    """Its vectorized form does not reset itself."""


class _WiderVector(Vector):
    single_observation_space = spaces.Box(-2, 2, (2,), np.float32)


class OtherObservationSpace(E, vector_entry_point=_WiderVector):
    """Its vectorized form has another observation space."""


class _ThreeActionsVector(Vector):
    single_action_space = spaces.Discrete(3)


class OtherActionSpace(E, vector_entry_point=_ThreeActionsVector):
    """Its vectorized form has another action space."""


class _DoubleVector(Vector):
    def next_observations(self) -> Any:
        return super().next_observations().astype(np.float64)


class OtherDtype(E, vector_entry_point=_DoubleVector):
    """Its vectorized form returns observations of another dtype than its space has."""


class _ScaledVector(Vector):
    def step(self, actions: Any) -> tuple[Any, ...]:
        observations, rewards, *rest = super().step(actions)
        return observations, rewards * 2, *rest


class OtherRewards(E, vector_entry_point=_ScaledVector):
    """Its vectorized form returns other rewards."""


class _ShiftedVector(Vector):
    def next_observations(self) -> Any:
        return super().next_observations() / 2


class OtherObservations(E, vector_entry_point=_ShiftedVector):
    """Its vectorized form returns other observations."""


class _InPlaceVector(Vector):
    def next_observations(self) -> Any:
        if not hasattr(self, "_own"):
            self._own = np.zeros((self.num_envs, 2), np.float32)
        self._own[:] = super().next_observations()
        return self._own


class InPlaceVector(E, vector_entry_point=_InPlaceVector):
    """Its vectorized form returns its own array, which it changes in place."""


class _InPlaceRewardsVector(Vector):
    def step(self, actions: Any) -> tuple[Any, ...]:
        observations, rewards, *rest = super().step(actions)
        if not hasattr(self, "_own"):
            self._own = np.zeros(self.num_envs)
        self._own[:] = rewards
        return observations, self._own, *rest


class InPlaceRewards(E, vector_entry_point=_InPlaceRewardsVector):
    """Its vectorized form returns its own array of rewards, which it changes in place."""


class _SingleVector(Vector):
    def __init__(self, num_envs: int) -> None:  # noqa: ARG002
        super().__init__(1)


class OtherNumber(E, vector_entry_point=_SingleVector):
    """Its vectorized form has one environment, whatever it is asked for."""


class WithoutTimeLimit(E, max_episode_steps=15, vector_entry_point=Vector):
    """It has a time limit, and the constructor of its vectorized form no argument `max_episode_steps`."""


class _IgnoringVector(Vector):
    def __init__(self, num_envs: int, max_episode_steps: int) -> None:  # noqa: ARG002
        super().__init__(num_envs)


class IgnoredTimeLimit(E, max_episode_steps=15, vector_entry_point=_IgnoringVector):
    """It has a time limit, which its vectorized form ignores."""


class _LimitedVector(Vector):
    def __init__(self, num_envs: int, max_episode_steps: int) -> None:
        super().__init__(num_envs)
        self.max_episode_steps = max_episode_steps

    def ends(self) -> tuple[Any, Any]:
        return np.zeros(self.num_envs, np.bool_), self.episode_steps == self.max_episode_steps

    def step(self, actions: Any) -> tuple[Any, ...]:
        observations, rewards, terminated, truncated, info = super().step(actions)
        self.was_done = truncated
        return observations, rewards, terminated, truncated.copy(), info


class VectorizedTimeLimit(E, max_episode_steps=15, vector_entry_point=_LimitedVector):
    """Has a time limit, which its vectorized form keeps."""


class NegatedRewards(gymnasium.RewardWrapper[Any, Any]):
    """Returns the negative reward."""

    def reward(self, reward: Any) -> float:
        return -float(reward)


class AdditionalWrappers(
    E,
    vector_entry_point=Vector,
    additional_wrappers=(WrapperSpec("NegatedRewards", "tests.zoo.vector_forms:NegatedRewards", {}),),
):
    """It is registered with a wrapper, which Gymnasium cannot apply to its vectorized form."""


class _RaisingVector(Vector):
    def step(self, _: Any) -> tuple[Any, ...]:
        raise RuntimeError("not yet\nand a second line")


class RaisingVector(E, vector_entry_point=_RaisingVector):
    """`step` of its vectorized form raises."""


class NumEnvs(E):
    """Has an argument of the name that `gymnasium.make_vec` gives to the number of environments."""

    def __init__(self, num_envs: int) -> None:
        super().__init__()
        assert num_envs == 3


class RegisteredNumEnvs(E, kwargs={"num_envs": 3}):
    """Is registered with an argument of the name that `gymnasium.make_vec` gives to the number of environments."""

    def __init__(self, num_envs: int) -> None:
        super().__init__()
        assert num_envs == 3


#: Environments whose vectorized form training cannot use, and a part of the reason.
DIFFERING = {
    "SameStep": "declares the autoreset mode SAME_STEP, RLlib needs NEXT_STEP",
    "UndeclaredSameStep": "returns another observation in step 20 with the same seed",
    "Undeclared": "declares the autoreset mode None, RLlib needs NEXT_STEP",
    "NeverResetting": "does not reset itself in the step after the end of an episode",
    "OtherObservationSpace": "has the observation space Box(-2.0, 2.0, (2,), float32), single ones have Box(-1.0,",
    "OtherActionSpace": "has the action space Discrete(3), single ones have Discrete(2)",
    "OtherDtype": "resets to another observation with the same seed",
    "OtherRewards": "returns another reward or end of the episode in step ",
    "OtherObservations": "resets to another observation with the same seed",
    "InPlaceVector": "changes what it returned before",
    "InPlaceRewards": "changes what it returned before",
    "OtherNumber": "has 1 environments instead of 2",
    "WithoutTimeLimit": "unexpected keyword argument 'max_episode_steps'",
    "IgnoredTimeLimit": "returns another reward or end of the episode in step 15 with the same seed",
    "AdditionalWrappers": "additional_wrappers",
    "RaisingVector": "raised RuntimeError: not yet",
}
