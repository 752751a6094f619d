"""Learns with PPO's loss as RLlib computes it, in a loop over minibatches that does little else than compute it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
import tree
from ray.rllib.algorithms.ppo.ppo import (
    LEARNER_RESULTS_KL_KEY,
    LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY,
    LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY,
)
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from ray.rllib.utils.torch_utils import explained_variance

from pipeline.rllib.compat import CustomLearner

#: The columns of a batch that no module and no loss reads once advantages are estimated.
_ESTIMATED = {Columns.REWARDS, Columns.TERMINATEDS, Columns.TRUNCATEDS, Columns.LOSS_MASK, WEIGHTS_SEQ_NO}


class OneCheckLearner(PPOTorchLearner):  # type: ignore[misc]  # RLlib has no types
    """RLlib's learner, bit for bit as long as gradients are finite, with one check of all of them."""

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


class Losses(NamedTuple):
    """PPO's loss of a minibatch, and the parts of it; each is a scalar tensor, `values` has the shape `[rows]`.

    Attributes:
        total: What gradients are computed of.
        policy: The clipped surrogate objective, negated.
        value: The squared error of the value estimates, clipped at `vf_clip_param`.
        unclipped_value: The same, not clipped.
        entropy: The mean entropy of the action distributions.
        kl: The mean KL divergence from the policy that sampled; 0 without `use_kl_loss`.
        values: The value estimates.
    """

    total: torch.Tensor
    policy: torch.Tensor
    value: torch.Tensor
    unclipped_value: torch.Tensor
    entropy: torch.Tensor
    kl: torch.Tensor
    values: torch.Tensor


class ArrayLearner(OneCheckLearner, CustomLearner):
    """A learner whose epochs are split into shuffled minibatches of equal sizes, give or take one row.

    RLlib's loop spends most of the time of small networks on metrics of each minibatch, of which it keeps the last
    one's. Its minibatches contain rows that only bootstrap the value of unfinished episodes, and are not shuffled in
    the first epoch.
    """

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Create Adam, which updates all tensors in one call."""
        parameters = self.get_parameters(self.module[module_id])
        optimizer = torch.optim.Adam(parameters, fused=True)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def learn(
        self, module: TorchRLModule, batch: Mapping[str, Any], num_epochs: int, minibatch_size: int
    ) -> dict[str, torch.Tensor]:
        """Run all epochs, and return the metrics of the last minibatch."""
        optimizer = self.get_optimizer()
        parameters = self.get_parameters(module)
        module.train()
        for minibatch in _minibatches(batch, num_epochs, minibatch_size):
            losses = self.losses(module, minibatch)
            optimizer.zero_grad()
            losses.total.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            norm = _clip(parameters, self.config.grad_clip)
            optimizer.step()
        explained = explained_variance(minibatch[Postprocessing.VALUE_TARGETS], losses.values.detach())
        return {
            self.TOTAL_LOSS_KEY: losses.total.detach(),
            POLICY_LOSS_KEY: losses.policy.detach(),
            VF_LOSS_KEY: losses.value.detach(),
            LEARNER_RESULTS_VF_LOSS_UNCLIPPED_KEY: losses.unclipped_value.detach(),
            LEARNER_RESULTS_VF_EXPLAINED_VAR_KEY: explained,
            ENTROPY_KEY: losses.entropy.detach(),
            LEARNER_RESULTS_KL_KEY: losses.kl.detach(),
            "gradients_default_optimizer_global_norm": norm,
        }

    def losses(self, module: TorchRLModule, minibatch: Mapping[str, Any]) -> Losses:
        """Return the loss of a minibatch, which contains no rows without loss."""
        config, advantages = self.config, minibatch[Postprocessing.ADVANTAGES]
        outputs = self.forward_train(module, minibatch)
        policy = module.get_train_action_dist_cls().from_logits(outputs[Columns.ACTION_DIST_INPUTS])
        ratio = torch.exp(policy.logp(minibatch[Columns.ACTIONS]) - minibatch[Columns.ACTION_LOGP])
        kl = torch.zeros((), device=ratio.device)
        if config.use_kl_loss:
            inputs = minibatch[Columns.ACTION_DIST_INPUTS]
            kl = module.get_exploration_action_dist_cls().from_logits(inputs).kl(policy).mean()
        entropies = policy.entropy()
        clipped_ratio = ratio.clamp(1 - config.clip_param, 1 + config.clip_param)
        surrogate = torch.min(advantages * ratio, advantages * clipped_ratio)
        values = module.compute_values(minibatch, embeddings=outputs.get(Columns.EMBEDDINGS))
        errors = torch.pow(values - minibatch[Postprocessing.VALUE_TARGETS], 2.0)
        clipped = errors.clamp(0, config.vf_clip_param)
        total = torch.mean(-surrogate + config.vf_loss_coeff * clipped - config.entropy_coeff * entropies)
        if config.use_kl_loss:
            total = total + self.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID] * kl
        with torch.no_grad():
            return Losses(total, -surrogate.mean(), clipped.mean(), errors.mean(), entropies.mean(), kl, values)


def _minibatches(batch: Mapping[str, Any], num_epochs: int, minibatch_size: int) -> Iterator[dict[str, Any]]:
    """Yield the minibatches of all epochs; rows without a loss, which bootstrap value estimates, are in none."""
    columns = {name: column for name, column in batch.items() if name not in _ESTIMATED}
    rows = torch.nonzero(batch[Columns.LOSS_MASK]).squeeze(-1)
    count = max(1, round(len(rows) / minibatch_size))
    for _ in range(num_epochs):
        shuffled = rows[torch.randperm(len(rows), device=rows.device)]
        for chosen in shuffled.tensor_split(count):
            yield {name: _chosen(column, chosen) for name, column in columns.items()}


def _chosen(column: Any, rows: torch.Tensor) -> Any:
    """Return rows of a tensor, or of each of nested tensors."""
    if isinstance(column, torch.Tensor):
        return column[rows]
    return tree.map_structure(lambda tensor: tensor[rows], column)


def _clip(parameters: list[torch.nn.Parameter], limit: float) -> torch.Tensor:
    """Scale gradients to a global norm of at most `limit`, with 0 for each number that is not finite.

    Returns:
        The norm before, which is not finite if a gradient was not.
    """
    gradients = [each.grad for each in parameters if each.grad is not None]
    norm = total = torch.nn.utils.get_total_norm(gradients)
    if not torch.isfinite(norm):
        for each in gradients:
            each.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        total = torch.nn.utils.get_total_norm(gradients)
    torch.nn.utils.clip_grads_with_norm_(parameters, limit, total)
    return norm
