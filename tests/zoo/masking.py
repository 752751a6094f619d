"""An environment that forbids actions, and modules that mask them as RLlib's example does and in other ways."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.core.columns import Columns
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule

from tests.zoo.base import EPISODE_STEPS, E

ACTIONS = 4


class Masked(E):
    """Observations include a mask of the allowed actions, at least one; `step` raises on the others."""

    def __init__(self) -> None:
        super().__init__()
        numbers = self.observation_space
        self.action_space = spaces.Discrete(ACTIONS)
        self.observation_space = spaces.Dict(
            {"action_mask": spaces.Box(0, 1, (ACTIONS,), np.float32), "observations": numbers}
        )

    def step(self, action: Any) -> Any:
        if not self.observation["action_mask"][action]:
            raise ValueError(f"action {action} is forbidden")
        self.episode_steps += 1
        self.observation = self.next_observation()
        return self.observation, float(action), self.episode_steps == EPISODE_STEPS, False, {}

    def next_observation(self) -> Any:
        mask = self.np_random.integers(2, size=ACTIONS).astype(np.float32)
        mask[self.np_random.integers(ACTIONS)] = 1
        return {"action_mask": mask, "observations": super().next_observation()}


class LowestFloat(ActionMaskingTorchRLModule):  # type: ignore[misc]  # RLlib has no types
    """Adds the lowest float32 to the logits of forbidden actions, as RLlib's example does."""


class MinusInfinity(ActionMaskingTorchRLModule):  # type: ignore[misc]
    """Replaces the logits of forbidden actions by minus infinity."""

    def _mask_action_logits(self, batch: dict[str, Any], action_mask: torch.Tensor) -> dict[str, Any]:
        logits = batch[Columns.ACTION_DIST_INPUTS]
        batch[Columns.ACTION_DIST_INPUTS] = torch.where(action_mask > 0, logits, -torch.inf)
        return batch


class MinusBillion(ActionMaskingTorchRLModule):  # type: ignore[misc]
    """Adds -1e9 to the logits of forbidden actions."""

    def _mask_action_logits(self, batch: dict[str, Any], action_mask: torch.Tensor) -> dict[str, Any]:
        batch[Columns.ACTION_DIST_INPUTS] = batch[Columns.ACTION_DIST_INPUTS] - 1e9 * (1 - action_mask.round())
        return batch


#: Modules that mask actions.
MODULES = ["LowestFloat", "MinusInfinity", "MinusBillion"]
