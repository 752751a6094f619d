"""Small environments for every kind of space (`tests.pipeline.zoo:NAME-v0`), and wrappers and modules of a user."""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule

EPISODE_STEPS = 10

NESTED = spaces.Dict(
    {
        "arm": spaces.Dict(
            {
                "position": spaces.Box(-1, 1, (3,), np.float32),
                "held": spaces.MultiBinary(2),
                "tool": spaces.Discrete(3, start=-1),
            }
        ),
        "camera": spaces.Box(0, 255, (10, 12, 3), np.uint8),
        "readings": spaces.Tuple(
            [spaces.Box(-np.inf, np.inf, (), np.float64), spaces.MultiDiscrete([[2, 3], [4, 5]])],
        ),
    }
)

BOX = spaces.Box(-1, 1, (3,), np.float32)


class Sampler(gymnasium.Env[Any, Any]):
    """Returns random observations, and fails on an action that is not in its space."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self._steps += 1
        return self.observation_space.sample(), 1.0, self._steps == EPISODE_STEPS, False, {}


SPACES: dict[str, tuple[spaces.Space[Any], spaces.Space[Any]]] = {
    "Nested": (NESTED, spaces.Discrete(3)),
    "NestedActions": (BOX, NESTED["arm"]),
    "TupleActions": (
        BOX,
        spaces.Tuple([spaces.Discrete(3), spaces.Box(-2, 2, (2,), np.float32), spaces.MultiDiscrete([2, 3])]),
    ),
    "MultiDiscrete": (spaces.MultiDiscrete([3, 4], start=[1, -2]), spaces.MultiDiscrete([3, 4])),
    "StartingMultiDiscrete": (BOX, spaces.MultiDiscrete([[3, 4], [2, 2]], start=[[1, 0], [0, 5]])),
    "MultiBinary": (spaces.MultiBinary((2, 3)), spaces.MultiBinary((2, 3))),
    "DiscreteStart": (spaces.Discrete(5, start=3), spaces.Discrete(4, start=-2)),
    "SquareBox": (spaces.Box(-1, 1, (2, 2), np.float32), spaces.Box(-2, 3, (2, 2), np.float32)),
    "HalfBoundedBox": (
        spaces.Box(-5, 5, (), np.float32),
        spaces.Box(np.array([0, -np.inf, -1], np.float32), np.array([np.inf, 1, 4], np.float32)),
    ),
    "IntegerBox": (spaces.Box(-3, 9, (2,), np.int32), spaces.Box(-3, 4, (2,), np.int16)),
    "DoubleBox": (spaces.Box(-1, 1, (2,), np.float64), spaces.Box(-3, 3, (2,), np.float64)),
    "UnboundedBox": (BOX, spaces.Box(-np.inf, np.inf, (2,), np.float32)),
    "ScalarBox": (BOX, spaces.Box(-2, 2, (), np.float32)),
    "Images": (spaces.Box(0, 255, (84, 84, 4), np.uint8), spaces.Discrete(4)),
    "ChannelsFirst": (spaces.Box(0, 255, (3, 16, 20), np.uint8), spaces.Discrete(4)),
    "Text": (spaces.Text(5), spaces.Discrete(2)),
    "Sequence": (spaces.Tuple([BOX, spaces.Sequence(BOX)]), spaces.Discrete(2)),
    "Graph": (spaces.Graph(BOX, None), spaces.Discrete(2)),
    "DottedKey": (spaces.Dict({"a.b": BOX}), spaces.Discrete(2)),
    "WideIntegers": (BOX, spaces.Box(0, 5000, (1,), np.int32)),
}

for _name, (_observations, _actions) in SPACES.items():
    gymnasium.register(f"{_name}-v0", Sampler, kwargs={"observation_space": _observations, "action_space": _actions})


class WithoutVelocities(gymnasium.ObservationWrapper[Any, Any, Any]):
    """CartPole that observes position and angle only, so that a policy needs memory."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        full = env.observation_space
        assert isinstance(full, spaces.Box)
        self.observation_space = spaces.Box(full.low[::2], full.high[::2])

    def observation(self, observation: Any) -> Any:
        return observation[::2]


class RewardPlusOne(gymnasium.RewardWrapper[Any, Any]):
    """Adds 1 to each reward."""

    def reward(self, reward: Any) -> Any:
        return reward + 1


class RewardDoubled(gymnasium.RewardWrapper[Any, Any]):
    """Doubles each reward."""

    def reward(self, reward: Any) -> Any:
        return 2 * reward


class TwoLayers(TorchRLModule, ValueFunctionAPI):
    """A user's RLModule, with a setting that only it reads."""

    def setup(self) -> None:
        units = self.model_config["units"]
        size, outputs = self.observation_space.shape[0], self.action_space.n
        self.policy = torch.nn.Sequential(
            torch.nn.Linear(size, units), torch.nn.GELU(), torch.nn.Linear(units, outputs)
        )
        self.value = torch.nn.Sequential(torch.nn.Linear(size, units), torch.nn.GELU(), torch.nn.Linear(units, 1))

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.policy(batch[Columns.OBS])}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:  # noqa: ARG002  # RLlib's signature
        return self.value(batch[Columns.OBS]).squeeze(-1)


class Untranslatable(TwoLayers):
    """A module that works in torch and cannot be translated to ONNX."""

    def _forward(self, batch: dict[str, Any], **more: Any) -> dict[str, Any]:
        outputs = super()._forward(batch, **more)
        logits = outputs[Columns.ACTION_DIST_INPUTS]
        mixing = torch.linalg.matrix_exp(torch.zeros(logits.shape[-1], logits.shape[-1]))
        return {Columns.ACTION_DIST_INPUTS: logits @ mixing}
