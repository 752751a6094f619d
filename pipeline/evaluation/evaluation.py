"""Plays greedy episodes with a policy and returns their returns or their observations."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from pipeline import signals
from pipeline.environments.make import Environment
from pipeline.environments.nested_spaces import stack
from pipeline.evaluation.player import Player, State
from serving.policy.environments import MAX_EPISODE_STEPS, cut_notice, was_cut
from serving.policy.environments.errors import ContractBroken
from serving.policy.errors import EnvironmentNotMade
from serving.policy.tensors import OBSERVATIONS

Observe = Callable[[Sequence[int], Sequence[Any]], None]
"""Receives, for each step of parallel episodes, their indices and their observations before the step."""

#: Parallel episodes that observations are collected from.
_COLLECTED_EPISODES = 32


@dataclass(frozen=True)
class Evaluation:
    """The returns of greedy episodes.

    Attributes:
        returns: The sum of rewards of each episode, in the order of their seeds.
        first_seed: The seed of the first episode; episode i was reset with `first_seed + i`.
        cut: The number of episodes that did not end and were cut.
        max_steps: The number of steps after which they were cut.
    """

    returns: tuple[float, ...]
    first_seed: int
    cut: int = 0
    max_steps: int = MAX_EPISODE_STEPS

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """The standard deviation of the returns of these episodes."""
        return float(np.std(self.returns))

    @property
    def minimum(self) -> float:
        """The lowest return."""
        return min(self.returns)

    @property
    def maximum(self) -> float:
        """The highest return."""
        return max(self.returns)

    @property
    def median(self) -> float:
        """The median return."""
        return float(np.median(self.returns))

    @property
    def is_constant(self) -> bool:
        """Whether all returns are equal. If they also reach the target, more training cannot improve the policy."""
        return self.minimum == self.maximum

    @property
    def notice(self) -> str | None:
        """A sentence about the episodes that were cut; None if all ended."""
        return cut_notice(self.cut, len(self.returns), self.max_steps) if self.cut else None

    def __str__(self) -> str:
        return f"{self.mean:.1f} +- {self.std:.1f} (minimum {self.minimum:.1f}) over {len(self.returns)} episodes"


def play(
    player: Player, environment: Environment, episodes: int, first_seed: int, observe: Observe | None = None
) -> Evaluation:
    """Play whole episodes in parallel, with one batch of observations per step.

    Episode i is reset with `first_seed + i`. `observe` receives all observations.

    Raises:
        EnvironmentMisbehaved: If the environment raises an exception or breaks its contract, or a return overflows.
    """
    returns, cut = np.zeros(episodes), 0
    for step in _steps(player, environment, episodes, first_seed):
        if observe is not None:
            observe(step.episodes, step.observations)
        with np.errstate(over="ignore"):
            returns[step.episodes] += step.rewards
        cut += step.cut
    for index in np.flatnonzero(~np.isfinite(returns)):
        episode = f"the episode with seed {first_seed + index}"
        raise ContractBroken(environment.id, episode, f"has the return {returns[index]}", "a finite sum of rewards")
    return Evaluation(tuple(returns.tolist()), first_seed, cut, environment.max_episode_steps)


def play_in_halves(
    executor: Executor | None, player: Player, environment: Environment, episodes: int, first_seed: int
) -> Evaluation:
    """Play half of the episodes in the executor and half in this process; without an executor, play all here.

    Networks round differently in batches of different sizes. The halves have the same sizes wherever they are played,
    so an evaluation does not depend on whether the executor is busy.
    """
    if executor is None:
        return play(player, environment, episodes, first_seed)
    half = episodes // 2
    second = executor.submit(play, player, environment, episodes - half, first_seed + half)
    first = play(player, environment, half, first_seed)
    other = second.result()
    return Evaluation(first.returns + other.returns, first_seed, first.cut + other.cut, first.max_steps)


def observations(player: Player, environment: Environment, count: int, first_seed: int) -> dict[str, np.ndarray]:
    """Return observations from 32 parallel episodes, by the names of the graph's inputs.

    Returns:
        Arrays `[count, *leaf.shape]` in the dtypes of the leaves; shorter if all episodes end before.
    """
    collected = [observation for observation, _ in visited(player, environment, count, first_seed)]
    return stack(player.observation_space, collected, OBSERVATIONS)


def visited(player: Player, environment: Environment, count: int, first_seed: int) -> list[tuple[Any, State]]:
    """Return pairs of an observation and the policy's state before it, from 32 parallel episodes.

    Returns:
        At most `count` pairs; fewer if all episodes end before.
    """
    steps = _steps(player, environment, _COLLECTED_EPISODES, first_seed)
    return list(islice((pair for step in steps for pair in zip(step.observations, step.states, strict=True)), count))


class _Step(NamedTuple):
    """One step of all unfinished episodes.

    Attributes:
        episodes: The indices of the episodes.
        observations: Their observations before the step.
        states: Their recurrent states before the step.
        rewards: Their rewards.
        cut: How many of them were cut after this step.
    """

    episodes: list[int]
    observations: list[Any]
    states: list[State]
    rewards: list[float]
    cut: int


def _steps(player: Player, environment: Environment, episodes: int, first_seed: int) -> Iterator[_Step]:
    """Step episodes until the last one ends, in parallel as far as environments can be made.

    Raises Interrupted after a signal.
    """
    with contextlib.ExitStack() as opened:
        playing = dict(enumerate(_opened(opened, environment, episodes)))
        waiting = iter(range(len(playing), episodes))
        current = {index: each.reset(seed=first_seed + index)[0] for index, each in playing.items()}
        states: dict[int, State] = dict.fromkeys(current, player.initial_state())
        while current:
            signals.check()
            unfinished, batch = list(current), list(current.values())
            before = [states[index] for index in unfinished]
            actions, after = player.act(batch, before)
            states = dict(zip(unfinished, after, strict=True))
            rewards, cut = [], 0
            for index, action in zip(unfinished, actions, strict=True):
                observation, reward, terminated, truncated, _ = playing[index].step(action)
                rewards.append(float(reward))
                current[index] = observation
                if terminated or truncated:
                    cut += was_cut(playing[index])
                    del current[index]
                    made = playing.pop(index)
                    if (other := next(waiting, None)) is not None:
                        playing[other], states[other] = made, player.initial_state()
                        current[other], _ = made.reset(seed=first_seed + other)
            yield _Step(unfinished, batch, before, rewards, cut)


def _opened(stack: contextlib.ExitStack, environment: Environment, count: int) -> Iterator[gymnasium.Env[Any, Any]]:
    """Yield at most `count` environments, which the stack closes; fewer, but at least one, if no more can be made."""
    if count:
        yield stack.enter_context(contextlib.closing(environment.make()))
    with contextlib.suppress(EnvironmentNotMade):  # one that binds a port, for example, exists once only
        for _ in range(count - 1):
            yield stack.enter_context(contextlib.closing(environment.make()))
