"""A trainer that learns from recorded episodes first, and may go on with PPO in the environment."""

import dataclasses
import math
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup

from pipeline.config import TrainConfig
from pipeline.environments.make import Environment
from pipeline.export.observation_filter import FrozenFilter
from pipeline.rllib import checkpoint_layout, compat
from pipeline.rllib.errors import RecurrentUnsupported
from pipeline.rllib.offline import learner
from pipeline.rllib.offline.learner import OfflineSettings, RecordedEpisode
from pipeline.rllib.trainer import Iteration, Trainer

#: The steps of an iteration: whole episodes, until there are as many.
_STEPS = 16_384

#: The results of RLlib's learner that are logged, and the metric that each becomes.
_METRICS = {
    "policy_loss": "train/policy_loss",
    "vf_loss": "train/value_loss",
    "vf_explained_variance": "train/value_explained_variance",
    "moving_avg_sqd_adv_norm": "train/mean_squared_advantage",
    "default_optimizer_learning_rate": "train/learning_rate",
    "gradients_default_optimizer_global_norm": "train/gradient_norm",
}

_CONNECTORS = "env_to_module_connector"
_FILTER = "MeanStdFilter"


class OfflineTrainer(Trainer):
    """Learns from recorded episodes until `begin_ppo`, and then trains PPO with the weights that were found.

    Its policy, its checkpoints and its environment runners are PPO's: RLlib's MARWIL learner changes the weights of
    PPO's learner. The steps of all iterations are counted as one number: first the recorded steps that were learned
    from, where each pass over the episodes counts them again, and then PPO's environment steps.

    What an iteration learns follows from the seed and from the number of steps before it, so a training that is resumed
    gives the same weights as one that was not interrupted.

    Args:
        config: The settings of the training.
        environment: The environment that the episodes were recorded in.
        episodes: The episodes to learn from; none are needed if `begin_ppo` is called at once.
        settings: How to learn from them.
        state_file: Receives the state of the learner at each checkpoint.
    """

    def __init__(
        self,
        config: TrainConfig,
        environment: Environment,
        episodes: Sequence[RecordedEpisode],
        settings: OfflineSettings,
        state_file: Path,
    ) -> None:
        super().__init__(config, environment)
        self._episodes, self._settings, self._state_file = episodes, settings, state_file
        self._learned = 0
        self._before_ppo: int | None = None
        self._has_statistics = False

    def __enter__(self) -> Self:
        super().__enter__()
        if self.policy.state:
            self.__exit__()
            raise RecurrentUnsupported
        return self

    @property
    def returns(self) -> Sequence[float]:
        """The returns of PPO's last training episodes, at most 100; none while it learns from recorded ones."""
        return () if self._before_ppo is None else super().returns

    def iterations(self) -> Iterator[Iteration]:
        """Yield the results of iterations without end.

        Raises:
            LearningDiverged: If the loss or a gradient is not finite.
            Exception: As `Trainer.iterations`, after `begin_ppo`.
        """
        if self._before_ppo is None:
            yield from self._offline_iterations()
        else:
            for iteration in super().iterations():
                yield dataclasses.replace(iteration, env_steps=self._before_ppo + iteration.env_steps)

    def begin_ppo(self, steps: int) -> None:
        """Let `iterations`, `save` and `restore` be PPO's, which count from this many steps on."""
        self._before_ppo = steps
        self.__dict__.pop("_learners", None)

    def load_filter(self, checkpoint: Path) -> bool:
        """Take the statistics of the observation filter from the checkpoint of another policy; return if it has one."""
        state = checkpoint_layout.filter_state(checkpoint)
        if state is not None and self.is_filtered:
            self._set_filter(state)
        return state is not None

    def save(self, directory: Path) -> None:
        """Replace `directory` by an RLlib checkpoint of PPO, and write the state of MARWIL's learner to its file."""
        super().save(directory)
        self._state_file.unlink(missing_ok=True)
        if self._before_ppo is None:
            state = self._learners.get_state(["learner/rl_module", "learner/optimizer"])
            self._state_file.write_bytes(pickle.dumps(state))

    def restore(self, directory: Path, env_steps: int, returns: Sequence[float]) -> None:
        """Continue from a checkpoint that `save` wrote with the same settings and episodes."""
        super().restore(directory, env_steps - (self._before_ppo or 0), returns)
        self._has_statistics = True
        if self._before_ppo is None:
            self._learned = env_steps
            self._learners.set_state(pickle.loads(self._state_file.read_bytes()))  # noqa: S301  # checkpoints are pickles

    @cached_property
    def _learners(self) -> LearnerGroup:
        scale = self._config.reward_scale
        variance = learner.return_variance(self._episodes, self._config.gamma, scale)
        learners = learner.build(self._config, self._environment, self._settings, variance)
        learners.set_weights(self._algorithm.learner_group.get_weights())
        return learners

    def _offline_iterations(self) -> Iterator[Iteration]:
        if self.is_filtered and not self._has_statistics:
            self._fit_filter()
        episodes = self._filtered_episodes()
        for chosen in self._lessons():
            begun = time.perf_counter()
            learned = self._learn([episodes[index] for index in chosen])
            yield self._offline_iteration(learned, sum(map(len, (episodes[each] for each in chosen))), begun)

    def _lessons(self) -> Iterator[list[int]]:
        """Yield the episodes of each iteration, from the steps on that were learned before. An epoch has each once."""
        lengths = [len(each) for each in self._episodes]
        epoch, done = divmod(self._learned, sum(lengths))
        while True:
            order = np.random.default_rng([self._config.seed, epoch]).permutation(len(lengths))
            for chunk in learner.chunks(lengths, order.tolist(), _STEPS):
                size = sum(lengths[each] for each in chunk)
                if done <= 0:
                    yield chunk
                done -= size
            epoch, done = epoch + 1, 0

    def _learn(self, episodes: Sequence[RecordedEpisode]) -> Mapping[str, float]:
        """Update the weights by one pass over episodes, and return the last minibatch's results."""
        torch.manual_seed(int(np.random.SeedSequence([self._config.seed, self._learned]).generate_state(1)[0]))
        (results,) = self._learners.update(
            episodes=learner.as_rllib(episodes, self._environment),
            num_epochs=1,
            minibatch_size=self._config.minibatch_size,
        )
        learned = {name: float(stats.peek()) for name, stats in results[DEFAULT_MODULE_ID].items()}
        group = self._algorithm.learner_group
        group.set_weights(self._learners.get_weights())
        self._algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=group)
        return learned

    def _offline_iteration(self, learned: Mapping[str, float], steps: int, begun: float) -> Iteration:
        self._learned += steps
        metrics = {metric: learned[name] for name, metric in _METRICS.items() if name in learned}
        metrics["train/env_steps_per_second"] = steps / (time.perf_counter() - begun)
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        return Iteration(self._learned, steps, 0, math.nan, finite)

    def _fit_filter(self) -> None:
        """Compute the filter's statistics from all recorded observations."""
        fitted = MeanStdFilter()
        fitted.input_action_space = self._environment.trained_action_space
        fitted.input_observation_space = self._environment.observation_space
        compat.normalized(fitted, np.concatenate([each.observations for each in self._episodes]))
        self._set_filter(fitted.get_state())

    def _set_filter(self, state: dict[Any, Any]) -> None:
        self._algorithm.env_runner.set_state({_CONNECTORS: {_FILTER: state}})
        self._has_statistics = True

    def _filtered_episodes(self) -> Sequence[RecordedEpisode]:
        if not self.is_filtered:
            return self._episodes
        state = self._algorithm.env_runner.get_state(components=_CONNECTORS)
        frozen = FrozenFilter(state[_CONNECTORS][_FILTER])
        return [dataclasses.replace(each, observations=_filtered(frozen, each)) for each in self._episodes]


def _filtered(frozen: FrozenFilter, episode: RecordedEpisode) -> Any:
    return frozen(torch.from_numpy(np.ascontiguousarray(episode.observations))).numpy()
