"""The two implementations of PPO that are compared, behind one interface."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.training.zoo import Zoo
from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.environments.nested_spaces import Batch
from pipeline.evaluation.player import Player
from pipeline.settings import choice
from serving.policy.environments import import_object
from serving.policy.noise import Noise, NoisePart
from serving.policy.tensors import ACTION, NOISE, OBSERVATIONS


class Peer(Protocol):
    """An untrained PPO.

    Attributes:
        environment: The environment that its policy acts in, with the wrappers that it is trained with.
        max_steps: The environment steps after which training ends by its settings.
    """

    environment: environments.Environment
    max_steps: int

    def player(self) -> Player:
        """Return the policy with the current weights, which samples its actions if the zoo evaluates so."""

    def updates(self) -> Iterator[int]:
        """Train, and yield the environment steps so far after each update."""

    def close(self) -> None:
        """Release all resources."""


class OurPpo:
    """The trainer of this project with the settings that `train --env-id` takes."""

    def __init__(self, zoo: Zoo, seed: int) -> None:
        from pipeline.rllib.ray_session import RaySession
        from pipeline.rllib.trainer import Trainer

        config = settings(zoo, seed)
        self._is_sampled, self.max_steps = zoo.is_sampled, config.max_env_steps
        self._ray = RaySession(address=None)
        self._ray.start(config)
        self._ray.wait_until_ready()
        self.environment = environments.of_config(config)
        self._trainer = Trainer(config, self.environment).__enter__()

    def player(self) -> Player:
        policy = self._trainer.policy
        player = Player.exportable(policy)
        return _sampled(player, policy.heads.noise) if self._is_sampled else player

    def updates(self) -> Iterator[int]:
        return (iteration.env_steps for iteration in self._trainer.iterations())

    def close(self) -> None:
        self._trainer.__exit__()
        self._ray.__exit__(None, None, None)


def _sampled(player: Player, parts: Sequence[NoisePart]) -> Player:
    """Return a player that samples its actions, with the same noise in each evaluation."""
    noise, seeds = Noise(tuple(parts)), count()

    def run(feeds: Batch) -> Batch:
        batch = len(next(iter(feeds.values())))
        return player.run({**feeds, NOISE: noise.draw(batch, next(seeds))})

    return replace(player, run=run)


def settings(zoo: Zoo, seed: int) -> TrainConfig:
    """Return the settings that `train --env-id` takes."""
    wanted = {"env_id": zoo.gymnasium_id, "seed": seed}
    return TrainConfig(**{**choice.chosen_for(wanted).settings, **wanted})


class StableBaselines:
    """PPO of stable-baselines3 with the settings of the zoo, and its environments built as the zoo builds them."""

    def __init__(self, zoo: Zoo, seed: int) -> None:
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.logger import Logger
        from stable_baselines3.common.vec_env import VecNormalize

        self._is_sampled, self.max_steps = zoo.is_sampled, zoo.max_steps
        wrappers = (zoo.wrapper,) if zoo.wrapper else ()
        self.environment = environments.describe(zoo.gymnasium_id, wrappers=wrappers)
        wrapper = import_object(zoo.wrapper) if zoo.wrapper else None
        vector: Any = make_vec_env(zoo.gymnasium_id, n_envs=zoo.n_envs, seed=seed, wrapper_class=wrapper)
        if zoo.normalize:
            vector = VecNormalize(vector, gamma=zoo.ppo["gamma"])
        self.model = PPO(env=vector, seed=seed, device="cpu", **zoo.ppo)
        self.model.set_logger(Logger(folder=None, output_formats=[]))  # leaves no directory behind
        # The part of `learn` before its loop, so that `updates` can run the loop step by step.
        _, self._callback = self.model._setup_learn(self.max_steps)  # noqa: SLF001

    def player(self) -> Player:
        seeds = count()

        def run(feeds: Batch) -> Batch:
            observations = feeds[OBSERVATIONS]
            if (normalized := self.model.get_vec_normalize_env()) is not None:
                observations = normalized.normalize_obs(observations)  # does not update the statistics
            with torch.random.fork_rng():
                torch.manual_seed(next(seeds))
                actions, _ = self.model.predict(observations, deterministic=not self._is_sampled)
            return {ACTION: np.asarray(actions)}

        return Player(self.environment.observation_space, self.environment.action_space, run)

    def updates(self) -> Iterator[int]:
        """Train like `OnPolicyAlgorithm.learn`, and yield after each update."""
        model: Any = self.model
        while model.num_timesteps < self.max_steps:
            model.collect_rollouts(model.env, self._callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
            model._update_current_progress_remaining(model.num_timesteps, self.max_steps)  # noqa: SLF001
            model.train()
            yield model.num_timesteps

    def close(self) -> None:
        self.model.env.close()


PEERS: dict[str, Callable[[Zoo, int], Peer]] = {"ours": OurPpo, "stable-baselines3": StableBaselines}
