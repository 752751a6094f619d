"""The policy under verification, the inputs that it is queried with, and what RLlib computes from them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from pipeline.bundle.equivalence import allows_action, compare
from pipeline.bundle.errors import ExportDiffers
from pipeline.environments.make import Environment
from pipeline.environments.nested_spaces import Batch, flatten, nest, stack
from pipeline.evaluation import evaluation
from pipeline.evaluation.player import Player, State
from pipeline.verification.checks import Check
from pipeline.verification.rllib_reference import Reference
from serving.policy.policy import Policy
from serving.policy.spaces import LeafSpace, leaves
from serving.policy.tensors import ACTION, ACTION_DIST_INPUTS, NOISE, OBSERVATIONS, STATE_IN

#: Networks overflow on values beyond this, so observations are clipped to it.
_LARGEST = 1e6

#: Replaces a bound beyond `_LARGEST` in the corners of a space.
_UNBOUNDED_CORNER = 10.0


@dataclass(frozen=True)
class Query:
    """One input of a policy: an observation, and the recurrent state before it."""

    observation: Any
    state: State


class Subject:
    """A policy, seeded queries to it, and the outputs that RLlib computes for them from the checkpoint.

    Half of the queries are from rollouts; the others are random observations and corners of the space. Those whose
    action mask allows no action are omitted: an environment cannot produce them, and any action is as good.

    Args:
        policy: The policy as serving loads it.
        checkpoint: The RLlib checkpoint of the same version.
        environment: The environment for rollouts.
        count: The number of queries.
        seed: The seed of the queries.
    """

    def __init__(self, policy: Policy, checkpoint: Path, environment: Environment, count: int, seed: int) -> None:
        self.policy = policy
        self.player = Player.served(policy)
        self.environment = environment
        self.observation_space, self.action_space = policy.observation_space, policy.action_space
        self.reference = Reference(checkpoint, self.observation_space, self.action_space)
        rollouts = [
            Query(as_arrays(self.observation_space, observation), state)
            for observation, state in evaluation.visited(self.player, environment, count // 2, seed)
        ]
        queries = [*rollouts, *self._made_up(count - len(rollouts), seed)]
        expected = self.reference.act(*_columns(queries))
        is_kept = allows_action(self.action_space, expected[ACTION_DIST_INPUTS])
        is_kept[: len(rollouts)] = True
        self.queries = [query for query, is_query_kept in zip(queries, is_kept, strict=True) if is_query_kept]
        self._expected = {name: values[is_kept] for name, values in expected.items()}

    def _made_up(self, count: int, seed: int) -> Iterator[Query]:
        """Yield random observations and corners of the space in turn."""
        self.observation_space.seed(seed)
        generator, shapes = np.random.default_rng(seed), self.player.state_shapes.items()
        for index in range(count):
            observation = self.observation_space.sample() if index % 2 else _corner(self.observation_space, generator)
            state = {name: generator.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes}
            yield Query(as_arrays(self.observation_space, observation), state)

    def outputs(self, queries: Sequence[Query], noise: NDArray[np.float32] | None = None) -> Batch:
        """Return the graph's actions and distribution inputs; greedy without noise, `[batch, noise_size]`."""
        observations, states = _columns(queries)
        feeds = stack(self.observation_space, observations, OBSERVATIONS)
        feeds |= {STATE_IN + name: np.stack([state[name] for state in states]) for name in self.player.state_shapes}
        if noise is not None:
            feeds[NOISE] = noise
        names = [*(leaf.tensor(ACTION) for leaf in leaves(self.action_space)), ACTION_DIST_INPUTS]
        return self.policy.run(feeds, names)

    def check_greedy(self, name: str, found: Batch) -> Check:
        """Compare greedy outputs for the first queries with RLlib's."""
        count = len(found[ACTION_DIST_INPUTS])
        try:
            compare(self.action_space, {output: values[:count] for output, values in self._expected.items()}, found)
        except ExportDiffers as error:
            return Check(name, count, f"{error.quantity} differ by {error.difference:.3g}")
        return Check(name, count, None)


def as_arrays(space: Space[Any], observation: Any) -> Any:
    """Return an observation as arrays in the dtypes of the leaves, with floats clipped to +-1e6."""
    values = zip(leaves(space), flatten(space, observation), strict=True)
    arrays = [np.asarray(value, leaf.space.dtype) for leaf, value in values]
    return nest(space, [each.clip(-_LARGEST, _LARGEST) if each.dtype.kind == "f" else each for each in arrays])


def _columns(queries: Sequence[Query]) -> tuple[list[Any], list[State]]:
    return [each.observation for each in queries], [each.state for each in queries]


def _corner(space: Space[Any], generator: np.random.Generator) -> Any:
    """Return an element of a space in which each number is randomly the lowest or the highest."""
    return nest(space, [_leaf_corner(leaf.space, generator) for leaf in leaves(space)])


def _leaf_corner(space: LeafSpace, generator: np.random.Generator) -> Any:
    if isinstance(space, spaces.Discrete):
        return int(space.start) + (int(space.n) - 1) * int(generator.integers(2))
    low: NDArray[Any]
    high: NDArray[Any]
    if isinstance(space, spaces.MultiBinary):
        low, high = np.zeros(space.shape), np.ones(space.shape)
    elif isinstance(space, spaces.MultiDiscrete):
        low, high = space.start, space.start + space.nvec - 1
    else:
        low = np.where(space.low < -_LARGEST, -_UNBOUNDED_CORNER, space.low)
        high = np.where(space.high > _LARGEST, _UNBOUNDED_CORNER, space.high)
    return np.where(generator.integers(2, size=space.shape), high, low).astype(space.dtype)
