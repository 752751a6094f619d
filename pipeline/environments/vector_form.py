"""Compares the vectorized implementation of an environment with single environments, before training uses it."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array

from pipeline.environments.nested_spaces import flatten
from serving.policy.spaces import leaves

#: Arguments of `gymnasium.make_vec`, which therefore does not pass them to the environment.
RESERVED = frozenset({"num_envs", "vectorization_mode", "vector_kwargs", "wrappers"})

_STEPS = 100
_SEED = 0


def objection(env_id: str, kwargs: Mapping[str, Any], single: gymnasium.Env[Any, Any]) -> str | None:
    """Return why training cannot use the vectorized implementation of an environment; None if it can.

    Its spaces and its way to start the next episode must be those that RLlib expects. With one environment and equal
    seeds and actions, it must return what the single one returns until the first episode ends, or for 100 steps.

    Args:
        env_id: The id of the environment, which declares a vectorized implementation.
        kwargs: Its keyword arguments.
        single: A single environment, which is reset.
    """
    with _finalizers_silenced():
        try:
            with _made(env_id, 1, kwargs) as vector:
                difference = _difference_of_spaces(vector, single) or _difference_of_steps(vector, single)
            if difference is None:
                with _made(env_id, 2, kwargs) as pair:
                    difference = None if pair.num_envs == 2 else f"has {pair.num_envs} environments instead of 2"  # noqa: PLR2004
        except Exception as error:  # noqa: BLE001  # its constructor and its methods may raise anything
            text = next(iter(str(error).splitlines()), "")
            return f"raised {type(error).__name__}: {text}"
    return difference


@contextlib.contextmanager
def _made(env_id: str, count: int, kwargs: Mapping[str, Any]) -> Iterator[VectorEnv[Any, Any, Any]]:
    with contextlib.closing(
        gymnasium.make_vec(env_id, num_envs=count, vectorization_mode="vector_entry_point", **kwargs)
    ) as vector:
        yield vector


def _difference_of_spaces(vector: VectorEnv[Any, Any, Any], single: gymnasium.Env[Any, Any]) -> str | None:
    pairs = (
        ("observation", vector.single_observation_space, single.observation_space),
        ("action", vector.single_action_space, single.action_space),
    )
    for role, found, expected in pairs:
        if found != expected:
            return f"has the {role} space {found}, single ones have {expected}"
    mode = vector.metadata.get("autoreset_mode")
    if mode is not AutoresetMode.NEXT_STEP:
        name = mode.name if isinstance(mode, AutoresetMode) else repr(mode)
        return f"declares the autoreset mode {name}, RLlib needs NEXT_STEP"
    return None


def _difference_of_steps(vector: VectorEnv[Any, Any, Any], single: gymnasium.Env[Any, Any]) -> str | None:
    space = single.observation_space
    single.action_space.seed(_SEED)
    observations, (observation, _) = vector.reset(seed=_SEED)[0], single.reset(seed=_SEED)
    ended: list[Any] = []
    if not _equal(space, observations, observation):
        return "resets to another observation with the same seed"
    for step in range(1, _STEPS + 1):
        action = single.action_space.sample()
        before = [*flatten(space, observations), *ended]
        observations, *ended, _ = vector.step(_batch(single.action_space, action))
        observation, reward, is_terminated, is_truncated, _ = single.step(action)
        found = [float(each[0]) for each in ended]
        if not np.allclose(found, [float(reward), is_terminated, is_truncated], rtol=1e-4, atol=1e-6):
            return f"returns another reward or end of the episode in step {step} with the same seed"
        if not _equal(space, observations, observation):
            return f"returns another observation in step {step} with the same seed"
        after = [*flatten(space, observations), *ended]
        if any(np.shares_memory(*pair) for pair in zip(before, after, strict=False)):
            return "changes what it returned before"
        if is_terminated or is_truncated:
            return _difference_of_reset(vector, single.action_space)
    return None


def _difference_of_reset(vector: VectorEnv[Any, Any, Any], action_space: Space[Any]) -> str | None:
    """Return how the step after the end of an episode, which must reset the environment, differs from that."""
    _, rewards, terminated, truncated, _ = vector.step(_batch(action_space, action_space.sample()))
    if rewards[0] or terminated[0] or truncated[0]:
        return "does not reset itself in the step after the end of an episode"
    return None


def _batch(space: Space[Any], action: Any) -> Any:
    return concatenate(space, [action], create_empty_array(space, n=1))


def _equal(space: Space[Any], batch: Any, single: Any) -> bool:
    """Return whether a batch of one observation has the space's dtypes, and equals a single observation."""
    for leaf, found, expected in zip(leaves(space), flatten(space, batch), flatten(space, single), strict=True):
        found_array, expected_array = np.asarray(found), np.asarray(expected)[None]
        if found_array.dtype != leaf.space.dtype or found_array.shape != expected_array.shape:
            return False
        if not np.allclose(found_array, expected_array, rtol=1e-4, atol=1e-6, equal_nan=True):
            return False
    return True


@contextlib.contextmanager
def _finalizers_silenced() -> Iterator[None]:
    """Print no exception of a finalizer: Gymnasium's fails for environments whose constructor failed."""
    before = sys.unraisablehook

    def silenced(unraisable: "sys.UnraisableHookArgs") -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            before(unraisable)

    sys.unraisablehook = silenced
    try:
        yield
    finally:
        sys.unraisablehook = before
