"""Plays episodes of an environment with scripted policies, recorded and compacted as a server's would be."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from pipeline.experience.whole_episodes import WholeEpisodes
from tests.pipeline.experience.exports.recorded import Truth, whole_episodes

Act = Callable[[Any, np.random.Generator], Any]


def balance(observation: Any, _: np.random.Generator) -> int:
    """Balance CartPole's pole for 500 steps."""
    position, speed, angle, turning = observation
    return int(angle + 0.3 * turning + 0.1 * speed + 0.05 * position > 0)


def mixed(mistakes: float) -> Act:
    """Balance the pole, except for a share of random actions."""

    def act(observation: Any, random: np.random.Generator) -> int:
        return int(random.integers(2)) if random.random() < mistakes else balance(observation, random)

    return act


def play(
    environment: gymnasium.Env[Any, Any], act: Act, count: int, first_seed: int = 0, **changes: Any
) -> list[Truth]:
    """Play episodes, each of which is named by its seed."""
    return [_episode(environment, act, seed, **changes) for seed in range(first_seed, first_seed + count)]


def _episode(environment: gymnasium.Env[Any, Any], act: Act, seed: int, **changes: Any) -> Truth:
    random, actions, rewards = np.random.default_rng(seed), [], []
    observation, _ = environment.reset(seed=seed)
    observations, is_terminated, is_truncated = [observation], False, False
    while not (is_terminated or is_truncated):
        actions.append(act(observation, random))
        observation, reward, is_terminated, is_truncated, _ = environment.step(actions[-1])
        observations.append(observation)
        rewards.append(float(reward))
    facts = {"done": "terminated" if is_terminated else "truncated"} | changes
    return Truth(f"episode-{seed}", observations, actions, rewards, **facts)


def cartpole_logs(uri: Any, shares: tuple[float, ...], count: int, **changes: Any) -> tuple[WholeEpisodes, float]:
    """Record episodes of policies with these shares of random actions; return them and their mean return."""
    with gymnasium.make("CartPole-v1") as environment:
        truths = [
            truth
            for number, share in enumerate(shares)
            for truth in play(environment, mixed(share), count, 1000 * number, **changes)
        ]
        spaces = environment.observation_space, environment.action_space
    return whole_episodes(uri, truths, *spaces), float(np.mean([sum(truth.rewards) for truth in truths]))
