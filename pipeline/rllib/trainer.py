"""RLlib, and nothing else: a configuration becomes a stream of PPO iterations, and checkpoints."""

import contextlib
import math
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray.cloudpickle
import torch
from gymnasium.spaces import Box
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from pipeline.config import TrainConfig
from pipeline.environments.make import Environment
from pipeline.export.exportable_policy import ExportablePolicy
from pipeline.export.observation_filter import MEAN_STD, FrozenFilter
from pipeline.networks import module_spec as networks
from pipeline.rllib import env_runner as sampling
from pipeline.rllib import learner as learning
from serving.policy.spaces import leaves

#: Episodes in the running mean of training returns, the window that stable-baselines3 and the literature use.
RETURN_WINDOW = 100

#: Where RLlib's checkpoints keep the networks.
_WEIGHTS = "learner_group/learner/rl_module"

#: RLlib's learner results that are worth a curve, and the metric that each becomes.
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
    """What one PPO iteration did.

    Attributes:
        env_steps: Environment steps since training began.
        sampled: Environment steps of this iteration; 0 while no environment runner is left.
        lost_env_runners: Remote ones that died, and that RLlib starts again.
        return_mean_100: Mean return of the last 100 training episodes (fewer at the start; NaN before the first ends).
        metrics: Finite numbers by metric name, as the README's table defines them.
    """

    env_steps: int
    sampled: int
    lost_env_runners: int
    return_mean_100: float
    metrics: Mapping[str, float]


class Trainer:
    """PPO on one environment; a context manager, within which Ray must run unless the configuration is of one process.

    Args:
        config: How to train.
        environment: What to train on; `config.env_id` described.
    """

    def __init__(self, config: TrainConfig, environment: Environment) -> None:
        self._config = algorithm_config(config, environment)
        self._environment = environment
        self.is_filtered = config.observation_filter == MEAN_STD
        self._num_threads = config.torch_num_threads
        self._returns: deque[float] = deque(maxlen=RETURN_WINDOW)
        self._env_steps = 0

    def __enter__(self) -> Self:
        # With the small networks of most policies, threads wait for each other longer than they compute.
        torch.set_num_threads(self._num_threads)
        with contextlib.ExitStack() as stack:
            if not ray.is_initialized():
                stack.enter_context(_without_ray())
            self._algorithm: PPO = self._config.build_algo()
            stack.callback(self._algorithm.stop)
            self._until_exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._until_exit.close()

    @property
    def policy(self) -> ExportablePolicy:
        """The policy as the environment runners have it; it changes while training."""
        module: TorchRLModule = self._algorithm.get_module()
        frozen = FrozenFilter(self._filter_state()) if self.is_filtered else None
        return ExportablePolicy(module, self._environment.observation_space, self._environment.action_space, frozen)

    def _filter_state(self) -> dict[Any, Any]:
        runner = self._algorithm.env_runner
        pipeline = runner.get_state(components="env_to_module_connector")["env_to_module_connector"]
        state: dict[Any, Any] = pipeline["MeanStdFilter"]
        return state

    @property
    def returns(self) -> Sequence[float]:
        """Returns of the last training episodes, at most 100 of them."""
        return self._returns

    def iterations(self) -> Iterator[Iteration]:
        """One PPO iteration after another, without end."""
        while True:
            begun = time.perf_counter()
            result = self._algorithm.train()
            yield self._iteration(result, time.perf_counter() - begun)

    def save(self, directory: Path) -> Path:
        """The whole RLlib checkpoint, optimizer and counters included, in `directory`."""
        shutil.rmtree(directory, ignore_errors=True)
        self._algorithm.save_to_path(directory)
        return directory

    def restore(self, directory: Path, env_steps: int, returns: Sequence[float]) -> None:
        """Go on from a checkpoint of the same configuration: weights, optimizer and counters.

        Args:
            directory: What `save` wrote.
            env_steps: Of the last iteration before that.
            returns: The `returns` at that time.
        """
        self._algorithm.restore_from_path(directory)
        self._env_steps = env_steps
        self._returns.extend(returns)

    def load_weights(self, checkpoint: Path) -> None:
        """Begin with the weights of a checkpoint; optimizer and counters begin anew.

        Raises:
            RuntimeError: If its network has another shape.
        """
        self._algorithm.restore_from_path(checkpoint / _WEIGHTS, component=_WEIGHTS)
        self._algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=self._algorithm.learner_group)

    def _iteration(self, result: Mapping[str, Any], seconds: float) -> Iteration:
        runners = result.get("env_runners", {})
        returns = runners.get(sampling.EPISODE_RETURNS)
        if isinstance(returns, list):  # RLlib says NaN where no episode ended
            self._returns.extend(map(float, returns))
        return_mean_100 = sum(self._returns) / len(self._returns) if self._returns else math.nan
        learner = result.get("learners", {}).get("default_policy", {})
        env_steps = int(result.get("num_env_steps_sampled_lifetime", self._env_steps))
        sampled, self._env_steps = env_steps - self._env_steps, env_steps
        group = self._algorithm.env_runner_group
        metrics = {
            "train/return_mean_100": return_mean_100,
            "train/rllib_episode_return_mean": runners.get("episode_return_mean", math.nan),
            "train/episode_length_mean": runners.get("episode_len_mean", math.nan),
            "train/env_steps_per_second": sampled / seconds,
            **{name: learner[key] for key, name in _LEARNER_METRICS.items() if key in learner},
        }
        return Iteration(
            env_steps=env_steps,
            sampled=sampled,
            lost_env_runners=group.num_remote_workers() - group.num_healthy_remote_workers(),
            return_mean_100=return_mean_100,
            metrics={name: float(value) for name, value in metrics.items() if math.isfinite(value)},
        )


@contextlib.contextmanager
def _without_ray() -> Iterator[None]:
    """Let RLlib train in this process alone.

    It puts configuration and weights into Ray's store for remote environment runners even where there are none, and
    that would start a Ray: its processes, and seconds of both cores.
    """
    put, ray.put = ray.put, lambda value: value
    try:
        yield
    finally:
        ray.put = put


def algorithm_config(config: TrainConfig, environment: Environment) -> PPOConfig:
    """RLlib's form of a configuration.

    A checkpoint carries what it names of these modules by value, and so opens where this package is not installed.
    """
    for module in (learning, sampling):
        ray.cloudpickle.register_pickle_by_value(module)
    env, env_config = environment.for_rllib
    has_own_vectors = isinstance(env, str) and environment.has_vector_entry_point
    has_boxes = any(isinstance(leaf.space, Box) for leaf in leaves(environment.trained_action_space))
    is_filtered = config.observation_filter == MEAN_STD
    schedule = [[0, config.lr], [config.lr_decay_steps, config.lr_final]]
    return (
        PPOConfig()
        # Unsquashing copies every action; without a Box there is nothing to unsquash.
        .environment(env, env_config=env_config, normalize_actions=has_boxes)
        .env_runners(
            num_env_runners=config.num_env_runners,
            num_envs_per_env_runner=config.num_envs_per_env_runner,
            gym_env_vectorize_mode="vector_entry_point" if has_own_vectors else "sync",
            env_runner_cls=SingleAgentEnvRunner if is_filtered else sampling.ArrayEnvRunner,
            env_to_module_connector=sampling.mean_std_filter if is_filtered else None,
        )
        .learners(num_learners=config.num_learners, num_gpus_per_learner=config.num_gpus_per_learner)
        .training(
            learner_class=learning.OneCheckLearner,
            train_batch_size_per_learner=config.train_batch_size_per_learner,
            minibatch_size=config.minibatch_size,
            num_epochs=config.num_epochs,
            lr=schedule if config.lr_final != config.lr else config.lr,
            gamma=config.gamma,
            lambda_=config.lambda_,
            use_kl_loss=config.use_kl_loss,
            kl_coeff=config.kl_coeff,
            kl_target=config.kl_target,
            clip_param=config.clip_param,
            vf_clip_param=config.vf_clip_param,
            vf_loss_coeff=config.vf_loss_coeff,
            entropy_coeff=config.entropy_coeff,
            grad_clip=config.grad_clip,
        )
        .rl_module(rl_module_spec=networks.spec(config, environment))
        .callbacks(on_episode_end=sampling.log_return)
        .debugging(seed=config.seed)
    )
