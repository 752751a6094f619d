"""Trains with RLlib's PPO: yields iterations, and saves and restores checkpoints."""

import contextlib
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray.cloudpickle
import torch
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core.learner import Learner
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.env_runner import EnvRunner

from pipeline.config import TrainConfig
from pipeline.environments.make import Environment
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.export.observation_filter import MEAN_STD, FrozenFilter
from pipeline.networks import module_spec
from pipeline.rllib import checked_sampling, checkpoint_layout, compat, env_runner, learner
from pipeline.rllib.errors import EnvRunnersLost, GradientsNotFinite

#: Episodes in the running mean of training returns, as in stable-baselines3 and the literature.
_RETURN_WINDOW = 100

#: Training ends when all environment runners were lost more often, or did not come back for longer, without a sample.
_MAX_LOSSES = 3
_MAX_LOST_S = 300.0

#: Training ends when the gradients of this many iterations in a row are not finite; single ones are left out.
_MAX_UNLEARNED = 3

#: The settings that RLlib's PPO takes as they are.
_PPO_SETTINGS = (
    "train_batch_size_per_learner",
    "minibatch_size",
    "num_epochs",
    "gamma",
    "lambda_",
    "use_kl_loss",
    "kl_coeff",
    "kl_target",
    "clip_param",
    "vf_clip_param",
    "vf_loss_coeff",
    "entropy_coeff",
    "grad_clip",
)

#: The results of RLlib's learner that are logged, and the metric that each becomes.
_LEARNER_METRICS = {
    "policy_loss": "train/policy_loss",
    "vf_loss": "train/value_loss",
    "vf_explained_var": "train/value_explained_variance",
    "entropy": "train/entropy",
    "default_optimizer_learning_rate": "train/learning_rate",
    "gradients_default_optimizer_global_norm": "train/gradient_norm",
}


@dataclass(frozen=True)
class Iteration:
    """The results of one PPO iteration.

    Attributes:
        env_steps: Environment steps since training began.
        sampled: Environment steps of this iteration; 0 if every environment runner is lost.
        lost_env_runners: Remote environment runners that died and that RLlib restarts.
        return_mean_100: Mean return of the last 100 training episodes, or of all if there are fewer; NaN if none ended.
        metrics: Finite values by the names under which MLflow shows them.
    """

    env_steps: int
    sampled: int
    lost_env_runners: int
    return_mean_100: float
    metrics: Mapping[str, float]


class Trainer:
    """A context manager that trains PPO with the settings `config` on `environment`, which describes `config.env_id`.

    Ray must run within the context, unless `config.is_one_process`.
    """

    def __init__(self, config: TrainConfig, environment: Environment) -> None:
        self._config = config
        self._environment = environment
        self.is_filtered = config.observation_filter == MEAN_STD
        self._returns: deque[float] = deque(maxlen=_RETURN_WINDOW)
        self._env_steps = 0
        self._unlearned = 0

    def __enter__(self) -> Self:
        checked_sampling.silence_repeated_failures()
        # In the small networks of most policies, threads wait for each other longer than they compute.
        torch.set_num_threads(self._config.torch_num_threads)
        with contextlib.ExitStack() as stack:
            if not ray.is_initialized():
                stack.enter_context(compat.without_ray())
            self._algorithm: PPO = algorithm_config(self._config, self._environment).build_algo()
            stack.callback(self._algorithm.stop)
            self._until_exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._until_exit.close()

    @property
    def policy(self) -> ExportablePolicy:
        """The policy with the current weights, which training changes in place."""
        module: TorchRLModule = self._algorithm.get_module()
        frozen = None
        if self.is_filtered:
            state = self._algorithm.env_runner.get_state(components="env_to_module_connector")
            frozen = FrozenFilter(state["env_to_module_connector"]["MeanStdFilter"])
        return ExportablePolicy(module, self._environment.observation_space, self._environment.action_space, frozen)

    @property
    def returns(self) -> Sequence[float]:
        """The returns of the last training episodes, at most 100."""
        return self._returns

    def iterations(self) -> Iterator[Iteration]:
        """Run PPO iterations without end, and yield the results of each.

        Raises:
            EnvironmentMisbehaved: If an environment raises an exception or breaks its contract.
            EnvRunnerFailed, EnvRunnersLost: If remote environment runners cannot sample.
            GradientsNotFinite: If iterations do not change the policy, because numbers overflow.
        """
        losses = _Losses()
        while True:
            begun = time.perf_counter()
            iteration = self._iteration(self._algorithm.train(), time.perf_counter() - begun)
            group = self._algorithm.env_runner_group
            restarts = group.num_remote_worker_restarts()
            if losses.are_new(iteration, restarts):
                checked_sampling.raise_failure(group)
            losses.count(iteration, restarts)
            yield iteration

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Close the training environments of this process within the block; training goes on in new episodes."""
        runner = self._algorithm.env_runner
        runner.env.close()
        try:
            yield
        finally:
            runner.make_env()

    def save(self, directory: Path) -> None:
        """Replace `directory` by an RLlib checkpoint, which includes optimizer and counters."""
        shutil.rmtree(directory, ignore_errors=True)
        self._algorithm.save_to_path(directory)

    def restore(self, directory: Path, env_steps: int, returns: Sequence[float]) -> None:
        """Continue from a checkpoint that `save` wrote with the same settings, at its `env_steps` and `returns`."""
        self._algorithm.restore_from_path(directory)
        self._env_steps = env_steps
        self._returns.extend(returns)

    def load_weights(self, checkpoint: Path) -> None:
        """Load the weights of a checkpoint; the optimizer and the counters keep their initial state.

        Raises:
            RuntimeError: If the checkpoint's network has another architecture.
        """
        modules = checkpoint_layout.MODULES
        self._algorithm.restore_from_path(checkpoint / modules, component=modules)
        self._algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=self._algorithm.learner_group)

    def _iteration(self, result: Mapping[str, Any], seconds: float) -> Iteration:
        runners = result.get("env_runners", {})
        returns = runners.get(env_runner.EPISODE_RETURNS)
        if isinstance(returns, list):  # RLlib returns NaN if no episode ended
            self._returns.extend(map(float, returns))
        return_mean_100 = sum(self._returns) / len(self._returns) if self._returns else math.nan
        learned = result.get("learners", {}).get("default_policy", {})
        env_steps = int(result.get("num_env_steps_sampled_lifetime", self._env_steps))
        sampled, self._env_steps = env_steps - self._env_steps, env_steps
        if sampled:  # RLlib's metrics are NaN while all environment runners are lost
            self._count_unlearned(learned, return_mean_100)
        group = self._algorithm.env_runner_group
        lost_env_runners = group.num_remote_workers() - group.num_healthy_remote_workers()
        metrics = {
            "train/return_mean_100": return_mean_100,
            "train/rllib_episode_return_mean": runners.get("episode_return_mean", math.nan),
            "train/episode_length_mean": runners.get("episode_len_mean", math.nan),
            "train/env_steps_per_second": sampled / seconds,
            **{name: learned[key] for key, name in _LEARNER_METRICS.items() if key in learned},
        }
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        return Iteration(env_steps, sampled, lost_env_runners, return_mean_100, finite)

    def _count_unlearned(self, learned: Mapping[str, Any], return_mean_100: float) -> None:
        """Count an iteration whose last gradients were not finite. Raises GradientsNotFinite if there are several."""
        numbers = [learned[key] for key in ("total_loss", "gradients_default_optimizer_global_norm") if key in learned]
        self._unlearned = 0 if all(map(math.isfinite, numbers)) else self._unlearned + 1
        if self._unlearned >= _MAX_UNLEARNED:
            raise GradientsNotFinite(self._unlearned, return_mean_100)


class _Losses:
    """Counts the losses of environment runners. `restarts` is the number of their restarts since training began."""

    def __init__(self) -> None:
        self._latest = (0, 0)
        self._restarts, self._sampled_at = 0, time.monotonic()

    def are_new(self, iteration: Iteration, restarts: int) -> bool:
        """Return whether runners may have been lost in this iteration, besides those that were lost before."""
        before, self._latest = self._latest, (iteration.lost_env_runners, restarts)
        return iteration.lost_env_runners > 0 and (iteration.lost_env_runners > before[0] or restarts > before[1])

    def count(self, iteration: Iteration, restarts: int) -> None:
        """Count an iteration. Raises EnvRunnersLost if all runners are lost for long, or again and again."""
        if iteration.sampled:
            self._restarts, self._sampled_at = restarts, time.monotonic()
            return
        losses, seconds = restarts - self._restarts + 1, time.monotonic() - self._sampled_at
        if losses > _MAX_LOSSES or seconds > _MAX_LOST_S:
            raise EnvRunnersLost(losses, seconds)


def algorithm_config(config: TrainConfig, environment: Environment) -> PPOConfig:
    """Return RLlib's form of the settings.

    A checkpoint contains the code of the modules below, so that it can be opened where this package is not installed.
    """
    for module in (checked_sampling, compat, env_runner, learner):
        ray.cloudpickle.register_pickle_by_value(module)
    env, env_config = environment.for_rllib
    has_own_vectors = isinstance(env, str) and environment.has_vector_entry_point
    is_filtered = config.observation_filter == MEAN_STD
    is_constant = config.lr_final == config.lr
    lr = config.lr if is_constant else [[0, config.lr], [config.lr_decay_steps, config.lr_final]]
    return (
        PPOConfig()
        # Unsquashing copies every action, and only actions of a Box need it.
        .environment(env, env_config=env_config, normalize_actions=environment.has_continuous_actions)
        .env_runners(
            num_env_runners=config.num_env_runners,
            num_envs_per_env_runner=config.num_envs_per_env_runner,
            gym_env_vectorize_mode="vector_entry_point" if has_own_vectors else "sync",
            env_runner_cls=_env_runner_class(config),
            env_to_module_connector=env_runner.mean_std_filter if is_filtered else None,
        )
        .learners(
            learner_class=_learner_class(config),
            num_learners=config.num_learners,
            num_gpus_per_learner=config.num_gpus_per_learner,
            learner_connector=None if config.reward_scale == 1 else _scaled_rewards(config.reward_scale),
        )
        .training(lr=lr, **{name: getattr(config, name) for name in _PPO_SETTINGS})
        .rl_module(rl_module_spec=module_spec.spec(config, environment))
        .callbacks(on_episode_end=env_runner.log_return)
        .debugging(seed=config.seed)
    )


def _scaled_rewards(factor: float) -> Callable[..., learner.ScaledRewards]:
    return lambda *_: learner.ScaledRewards(factor)


def _env_runner_class(config: TrainConfig) -> type[EnvRunner]:
    # The statistics of remote runners' filters are merged by RLlib, which counts what its own loop filtered.
    is_merged = config.observation_filter == MEAN_STD and config.num_env_runners > 0
    if config.sampling != "arrays" or is_merged or not compat.supports_custom_sampling():
        return env_runner.RllibEnvRunner
    if config.noise_correlation:
        return env_runner.with_correlated_noise(config.noise_correlation)
    return env_runner.ArrayEnvRunner


def _learner_class(config: TrainConfig) -> type[Learner]:
    is_supported = config.learning == "arrays" and compat.supports_custom_learning()
    return learner.ArrayLearner if is_supported else learner.OneCheckLearner
