"""Learns like RLlib's PPO, bit for bit as long as gradients are finite, with fewer checks of them."""

from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns


class OneCheckLearner(PPOTorchLearner):  # type: ignore[misc]  # RLlib has no types
    """RLlib's learner with one check of all gradients instead of two per gradient: a tenth of the time of training."""

    def apply_gradients(self, gradients_dict: dict[Any, torch.Tensor]) -> None:
        """Apply gradients, with 0 for each number that is not finite.

        RLlib's own check applies the largest float32 for infinity, which ends Adam's learning for good, and logs the
        weights in thousands of lines.
        """
        if not torch.isfinite(torch.nn.utils.get_total_norm(gradients_dict.values())):
            gradients_dict = {
                key: each.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for key, each in gradients_dict.items()
            }
        self.config.torch_skip_nan_gradients = True  # skips RLlib's checks
        super().apply_gradients(gradients_dict)


class ScaledRewards(ConnectorV2):  # type: ignore[misc]  # as above
    """Adds the rewards of episodes to the batch of the learner, multiplied by a factor.

    RLlib's own connector, which comes later, then adds none. The episodes keep their rewards.
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def __call__(self, *, batch: dict[str, Any], episodes: Any, **_: Any) -> dict[str, Any]:
        """Return the batch with rewards."""
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            steps = len(episode)
            rewards = self._factor * episode.get_rewards(slice(0, steps))
            self.add_n_batch_items(batch, Columns.REWARDS, rewards, steps, episode)
        return batch
