"""The two implementations of PPO that are compared, behind one interface."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.environments.make import Environment
from pipeline.evaluation.player import Player

ENV_ID = "CartPole-v1"

#: The settings for CartPole-v1 in hyperparams/ppo.yml of rl-baselines3-zoo.
ZOO_STEPS = 100_000
ZOO_ENVIRONMENTS = 8
ZOO_SETTINGS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": lambda remaining: remaining * 1e-3,
    "clip_range": lambda remaining: remaining * 0.2,
}


class Update(NamedTuple):
    """The environment steps before an update, and the mean of the last 100 training returns (NaN if fewer)."""

    env_steps: int
    return_mean_100: float


class Peer(Protocol):
    """An untrained PPO."""

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return greedy actions for a batch of observations, with the current weights."""

    def updates(self) -> Iterator[Update]:
        """Train, and yield after each update."""

    def close(self) -> None:
        """Release all resources."""


class OurPpo:
    """The trainer of this project with its default settings."""

    def __init__(self, seed: int) -> None:
        from pipeline.config import TrainConfig
        from pipeline.environments import make as environments
        from pipeline.rllib.ray_session import RaySession
        from pipeline.rllib.trainer import Trainer

        config = TrainConfig(seed=seed)
        self._ray = RaySession(address=None)
        self._ray.start(config)
        self._ray.wait_until_ready()
        environment = environments.describe(ENV_ID)
        self._trainer = Trainer(config, environment).__enter__()

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return greedy actions for a batch of observations, with the current weights."""
        return self._trainer.policy.run({"observations": observations})["action"]

    def updates(self) -> Iterator[Update]:
        """Train, and yield after each iteration."""
        for iteration in self._trainer.iterations():
            yield Update(iteration.env_steps, _mean_of_100(self._trainer.returns))

    def close(self) -> None:
        """Release all resources."""
        self._trainer.__exit__()
        self._ray.__exit__(None, None, None)


class StableBaselines:
    """PPO of stable-baselines3 with the settings of the zoo."""

    def __init__(self, seed: int) -> None:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env

        environments = make_vec_env(ENV_ID, n_envs=ZOO_ENVIRONMENTS, seed=seed)
        self.model = PPO("MlpPolicy", environments, seed=seed, device="cpu", **ZOO_SETTINGS)
        # The part of `learn` before its loop, so that `updates` can run the loop step by step.
        self._total, self._callback = self.model._setup_learn(ZOO_STEPS)  # noqa: SLF001

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Return greedy actions for a batch of observations, with the current weights."""
        actions, _ = self.model.predict(observations, deterministic=True)
        return np.asarray(actions)

    def updates(self) -> Iterator[Update]:
        """Train like `OnPolicyAlgorithm.learn`, and yield after each update."""
        model: Any = self.model
        while model.num_timesteps < self._total:
            model.collect_rollouts(model.env, self._callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
            model._update_current_progress_remaining(model.num_timesteps, self._total)  # noqa: SLF001
            model.train()
            yield Update(model.num_timesteps, _mean_of_100([each["r"] for each in model.ep_info_buffer]))

    def close(self) -> None:
        """Release all resources."""
        self.model.env.close()


def _mean_of_100(returns: Any) -> float:
    window = deque(returns, maxlen=100)
    return float(np.mean(window)) if len(window) == window.maxlen else float("nan")


PEERS: dict[str, Callable[[int], Peer]] = {"ours": OurPpo, "stable-baselines3": StableBaselines}


def greedy(peer: Peer, environment: Environment) -> Player:
    """Return the policy of a peer as a player for evaluations."""
    spaces = environment.observation_space, environment.action_space
    return Player(*spaces, lambda feeds: {"action": peer.act(feeds["observations"])})
