"""RLlib's MARWIL learner: the settings it is built with, and the batches that it learns from.

MARWIL (Wang et al., NeurIPS 2018) maximizes the log-probability of the recorded actions, each weighted by
exp(beta * advantage / norm). Behavior cloning is the same with beta 0: all actions have the weight 1, and neither
rewards nor the value function matter.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tree
from numpy.typing import NDArray
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.marwil.torch.marwil_torch_learner import MARWILTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from pipeline.config import TrainConfig
from pipeline.environments.make import Environment
from pipeline.networks import module_spec
from pipeline.rllib.errors import LearningDiverged
from pipeline.rllib.learner import ScaledRewards

#: The share by which each minibatch moves the mean of squared advantages, which advantages are normalized by.
_NORM_UPDATE_RATE = 0.01

#: The key of a learner's state with this mean, which RLlib's own state lacks.
_NORM_KEY = "mean_squared_advantage"


@dataclass(frozen=True)
class RecordedEpisode:
    """An episode to learn from.

    Attributes:
        observations: Arrays `[steps + 1, *shape]`, nested as the observation space.
        actions: Arrays `[steps, *shape]`, nested as the space of the policy's own actions.
        rewards: `[steps]`, not scaled.
        terminated: Whether it ended in a terminal state; otherwise the value of its last observation counts.
    """

    observations: Any
    actions: Any
    rewards: NDArray[np.float64]
    terminated: bool

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True)
class OfflineSettings:
    """How to learn from recorded episodes.

    Attributes:
        beta: The weight of advantages, from 0 to 1; 0 is behavior cloning.
        lr: Adam's learning rate.
    """

    beta: float
    lr: float


class OfflineLearner(MARWILTorchLearner):  # type: ignore[misc]  # RLlib has no types
    """RLlib's learner, whose state includes all that its next update depends on, and which ends where it diverges."""

    def compute_gradients(self, *args: Any, **kwargs: Any) -> dict[Any, torch.Tensor]:
        """Return the gradients of a minibatch. Raises LearningDiverged unless all are finite.

        RLlib would apply the largest float32 for infinity, which ends Adam's learning for good, and go on.
        """
        gradients: dict[Any, torch.Tensor] = super().compute_gradients(*args, **kwargs)
        if not torch.isfinite(torch.nn.utils.get_total_norm(each for each in gradients.values() if each is not None)):
            raise LearningDiverged(self.config.lr)
        return gradients

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return RLlib's state, and the mean of squared advantages."""
        norm = float(self.moving_avg_sqd_adv_norms_per_module[DEFAULT_MODULE_ID])
        return {**super().get_state(*args, **kwargs), _NORM_KEY: norm}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Set a state that `get_state` returned."""
        norm = state.get(_NORM_KEY)
        if norm is not None:
            self.moving_avg_sqd_adv_norms_per_module[DEFAULT_MODULE_ID] = torch.tensor(norm, device=self.device)
        super().set_state({name: value for name, value in state.items() if name != _NORM_KEY})


class ShuffledRows(ConnectorV2):  # type: ignore[misc]  # as above
    """Shuffles the rows of a batch, and drops those without a loss, which only bootstrap the value of cut episodes.

    RLlib does not shuffle the first epoch of an update.
    """

    def __call__(self, *, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Return the batch with its rows in an order that follows from torch's seed."""
        return {name: self._shuffled(columns) for name, columns in batch.items()}

    def _shuffled(self, columns: dict[str, Any]) -> dict[str, Any]:
        rows = torch.nonzero(columns[Columns.LOSS_MASK]).squeeze(-1)
        rows = rows[torch.randperm(len(rows)).to(rows.device)]
        return {name: tree.map_structure(lambda tensor: tensor[rows], column) for name, column in columns.items()}


class OfflineConfig(MARWILConfig):  # type: ignore[misc]  # as above
    """RLlib's settings of MARWIL, with minibatches that are shuffled.

    Value targets are computed for behavior cloning as well: modules that mask actions rely on it.
    """

    def build_learner_connector(self, *args: Any, **kwargs: Any) -> Any:
        """Return the connectors from episodes to a batch."""
        pipeline = super().build_learner_connector(*args, **kwargs)
        pipeline.remove("AddNextObservationsFromEpisodesToTrainBatch")
        pipeline.append(ShuffledRows())
        return pipeline


def build(
    config: TrainConfig, environment: Environment, settings: OfflineSettings, return_variance: float
) -> LearnerGroup:
    """Return one learner, in this process, for the policy that PPO would train with the same settings.

    Args:
        config: The settings of the training.
        environment: The environment of the recorded episodes.
        settings: How to learn.
        return_variance: That of discounted returns, from which the mean of squared advantages starts.
    """
    observations, actions = environment.observation_space, environment.trained_action_space
    offline = (
        OfflineConfig()
        .environment(observation_space=observations, action_space=actions)
        .training(
            beta=settings.beta,
            lr=settings.lr,
            gamma=config.gamma,
            grad_clip=config.grad_clip,
            vf_coeff=config.vf_loss_coeff,
            moving_average_sqd_adv_norm_start=return_variance,
            moving_average_sqd_adv_norm_update_rate=_NORM_UPDATE_RATE,
            learner_class=OfflineLearner,
        )
        .learners(
            num_learners=0,
            num_gpus_per_learner=config.num_gpus_per_learner,
            learner_connector=lambda *_: ScaledRewards(config.reward_scale),
        )
        .rl_module(rl_module_spec=module_spec.spec(config, environment))
        .debugging(seed=config.seed)
    )
    return offline.build_learner_group(spaces={DEFAULT_MODULE_ID: (observations, actions)})


def as_rllib(episodes: Sequence[RecordedEpisode], environment: Environment) -> list[SingleAgentEpisode]:
    """Return episodes in RLlib's form. They are new each time, because connectors change them."""
    return [_as_rllib(str(number), each, environment) for number, each in enumerate(episodes)]


def _as_rllib(name: str, episode: RecordedEpisode, environment: Environment) -> SingleAgentEpisode:
    return SingleAgentEpisode(
        name,
        observations=_buffer(episode.observations),
        observation_space=environment.observation_space,
        infos=[{}] * (len(episode) + 1),
        actions=_buffer(episode.actions),
        action_space=environment.trained_action_space,
        rewards=_buffer(episode.rewards),
        terminated=episode.terminated,
        truncated=not episode.terminated,
        len_lookback_buffer=0,
    )


def _buffer(arrays: Any) -> InfiniteLookbackBuffer:
    return InfiniteLookbackBuffer(tree.map_structure(np.copy, arrays))


def return_variance(episodes: Sequence[RecordedEpisode], gamma: float, reward_scale: float) -> float:
    """Return the variance of the discounted sums of scaled rewards from each step on; 1 if they are all equal."""
    returns = np.concatenate([_discounted(reward_scale * each.rewards, gamma) for each in episodes])
    variance = float(returns.var())
    return variance if variance > 0 else 1.0


def _discounted(rewards: NDArray[np.float64], gamma: float) -> NDArray[np.float64]:
    total, returns = 0.0, np.empty_like(rewards)
    for step in range(len(rewards) - 1, -1, -1):
        total = rewards[step] + gamma * total
        returns[step] = total
    return returns


def chunks(lengths: Sequence[int], order: Sequence[int], steps: int) -> Iterator[list[int]]:
    """Yield an order of episodes in groups of at least this many steps; only the last group may have fewer."""
    group: list[int] = []
    for index in order:
        group.append(index)
        if sum(lengths[each] for each in group) >= steps:
            yield group
            group = []
    if group:
        yield group
