"""The two that are compared: each yields after every rollout and update, and hands out its greedy policy."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from pipeline.environments.make import Environment
from pipeline.evaluation.player import Player

ENV_ID = "CartPole-v1"

#: stable-baselines3's settings in rl-baselines3-zoo, hyperparams/ppo.yml, CartPole-v1.
ZOO_STEPS = 100_000
ZOO_ENVIRONMENTS = 8
ZOO_SETTINGS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": lambda left: left * 1e-3,
    "clip_range": lambda left: left * 0.2,
}


class Moment(NamedTuple):
    """Environment steps so far, and the mean of the last 100 training returns (NaN with fewer)."""

    env_steps: int
    return_mean_100: float


class Peer(Protocol):
    """PPO, built and ready to train."""

    def act(self, observations: np.ndarray) -> np.ndarray:
        """Greedy actions for a batch of observations, with the weights as they are now."""

    def moments(self) -> Iterator[Moment]:
        """One after each update."""

    def close(self) -> None:
        """End what was started."""


class OurPpo:
    """The pipeline's trainer, with its defaults."""

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
        """As Peer."""
        return self._trainer.policy.run({"observations": observations})["action"]

    def moments(self) -> Iterator[Moment]:
        """As Peer."""
        for iteration in self._trainer.iterations():
            yield Moment(iteration.env_steps, _mean_of_100(self._trainer.returns))

    def close(self) -> None:
        """As Peer."""
        self._trainer.__exit__()
        self._ray.__exit__(None, None, None)


class StableBaselines:
    """stable-baselines3's PPO with the zoo's settings."""

    def __init__(self, seed: int) -> None:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env

        environments = make_vec_env(ENV_ID, n_envs=ZOO_ENVIRONMENTS, seed=seed)
        self.model = PPO("MlpPolicy", environments, seed=seed, device="cpu", **ZOO_SETTINGS)
        # What `learn` does before its loop, so that the loop can be walked through from here.
        self._total, self._callback = self.model._setup_learn(ZOO_STEPS)  # noqa: SLF001

    def act(self, observations: np.ndarray) -> np.ndarray:
        """As Peer."""
        actions, _ = self.model.predict(observations, deterministic=True)
        return np.asarray(actions)

    def moments(self) -> Iterator[Moment]:
        """As Peer; the loop of `OnPolicyAlgorithm.learn`."""
        model: Any = self.model
        while model.num_timesteps < self._total:
            model.collect_rollouts(model.env, self._callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
            model._update_current_progress_remaining(model.num_timesteps, self._total)  # noqa: SLF001
            model.train()
            yield Moment(model.num_timesteps, _mean_of_100([each["r"] for each in model.ep_info_buffer]))

    def close(self) -> None:
        """As Peer."""
        self.model.env.close()


def _mean_of_100(returns: Any) -> float:
    window = deque(returns, maxlen=100)
    return float(np.mean(window)) if len(window) == window.maxlen else float("nan")


PEERS: dict[str, Callable[[int], Peer]] = {"ours": OurPpo, "stable-baselines3": StableBaselines}


def greedy(peer: Peer, environment: Environment) -> Player:
    """The policy of a peer as evaluation takes it."""
    spaces = environment.observation_space, environment.action_space
    return Player(*spaces, lambda feeds: {"action": peer.act(feeds["observations"])})
