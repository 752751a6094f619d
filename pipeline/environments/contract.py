"""Checks an environment before training: whether it does what Gymnasium's contract says."""

import contextlib
import dataclasses
import inspect
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from pipeline.config import TrainConfig
from pipeline.environments import make as environments
from pipeline.environments.errors import EnvironmentExclusive
from pipeline.environments.make import Environment
from pipeline.environments.nested_spaces import flatten
from serving.errors import ExpectedError
from serving.policy.environments import LEGACY_PREFIX, conforming
from serving.policy.environments.checked import RESET_RETURNS, STEP_RETURNS, Checked, raised
from serving.policy.environments.conforming import Unfit
from serving.policy.environments.errors import ContractBroken, EnvironmentRaised
from serving.policy.errors import EnvironmentNotMade
from serving.policy.spaces import leaves

_RESET = "reset(*, seed=None, options=None)"

_REMEDY = (
    "Train it with --num-envs-per-env-runner 1 and --num-env-runners 0: each evaluation then closes it, makes its own, "
    "and plays one episode after the other."
)

#: The check takes this many random steps, or as many as fit into the time.
_STEPS = 100
_TIME_S = 0.5


def described(config: TrainConfig, note: Callable[[str], object], *, is_search: bool = False) -> Environment:
    """Describe the environment of a training, and check it.

    Args:
        config: The settings of the training.
        note: Receives what is converted in each step, and what `check_env` objects to.
        is_search: Whether several trainings run at once.

    Raises:
        ContractBroken, EnvironmentRaised: As `check`.
        EnvironmentExclusive: If it can exist once only, and the settings ask for several.
        Exception: As `pipeline.environments.make.describe`.
    """
    environment = environments.of_config(config)
    for each in check(environment, takes_any_action=config.rl_module == TrainConfig.rl_module):
        note(each)
    reason = exclusivity(environment)
    if reason is None:
        return environment
    if is_search:
        raise EnvironmentExclusive(
            environment.id, reason, "A search needs several; train with: python -m pipeline train"
        )
    if config.num_env_runners or config.num_envs_per_env_runner > 1:
        raise EnvironmentExclusive(environment.id, reason, _REMEDY)
    return dataclasses.replace(environment, is_exclusive=True)


def exclusivity(environment: Environment) -> str | None:
    """Return why a second environment cannot be made while the first one exists, as where each binds one port."""
    with contextlib.closing(environment.make()):
        try:
            environment.make().close()  # type: ignore[no-untyped-call]
        except EnvironmentNotMade as error:
            return error.reason
    return None


def check(environment: Environment, *, takes_any_action: bool = True) -> list[str]:
    """Reset and step an environment with random actions, and check it with Gymnasium's `check_env`.

    Args:
        environment: Its description.
        takes_any_action: Whether the policy may choose every action. One that masks actions does not, so an exception
            that a random action causes ends the check, and not the training.

    Returns:
        What is converted in each step, and what `check_env` objects to although training does not depend on it.

    Raises:
        ContractBroken: If it takes or returns something else than Gymnasium's contract says.
        EnvironmentRaised: If it raises an exception.
    """
    objection = None
    with contextlib.closing(environment.make()) as made, _without_warnings():
        try:
            _check_raw(environment.id, made.unwrapped)
            _check_steps(environment.id, made)
            if not environment.id.startswith(LEGACY_PREFIX):
                objection = _objection(_checked(made))
        except EnvironmentRaised as error:
            if takes_any_action or not error.call.startswith("step"):
                raise
            objection = f"a random action ended the check, which the policy may not choose: {error.reason}"
        conversions = [f"{environment.id}: {each}" for each in _checked(made).conversions]
        return [*conversions, *([f"{environment.id}: {objection}"] if objection else [])]


def _check_raw(env_id: str, raw: gymnasium.Env[Any, Any]) -> None:
    """Check what wrappers of Gymnasium unpack: the arguments of `reset`, and the number of returned values."""
    parameters = inspect.signature(raw.reset).parameters.values()
    if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        for name in ("seed", "options"):
            if name not in [each.name for each in parameters]:
                raise ContractBroken(env_id, "reset", f"takes no argument '{name}'", _RESET)
    call = "reset"
    try:
        conforming.values(raw.reset(seed=0), RESET_RETURNS, 2)
        call = "step"
        raw.action_space.seed(0)
        conforming.values(raw.step(raw.action_space.sample()), STEP_RETURNS, 5)
    except Unfit as unfit:
        raise ContractBroken(env_id, call, unfit.found, unfit.expected) from unfit
    except Exception as error:
        raise raised(env_id, call, error) from error


def _check_steps(env_id: str, made: gymnasium.Env[Any, Any]) -> None:
    deadline = time.monotonic() + _TIME_S
    made.action_space.seed(0)
    observation, _ = made.reset(seed=0)
    for _ in range(_STEPS):
        _require_within(env_id, made, observation)
        if time.monotonic() > deadline:
            return
        observation, _, terminated, truncated, _ = made.step(made.action_space.sample())
        if terminated or truncated:
            _require_within(env_id, made, observation)
            observation, _ = made.reset()


def _require_within(env_id: str, made: gymnasium.Env[Any, Any], observation: Any) -> None:
    """Raise ContractBroken if an observation, whose structure, shapes and dtypes are checked, is out of bounds."""
    if observation in made.observation_space:
        return
    values, parts = flatten(made.observation_space, observation), leaves(made.observation_space)
    leaf, value = next((leaf, value) for leaf, value in zip(parts, values, strict=True) if value not in leaf.space)
    name = f"the observation {leaf.path}" if leaf.path else "the observation"
    found, expected = f"returned {name} {value}", f"an element of {leaf.space}"
    if isinstance(leaf.space, spaces.Box):
        outside = (value < leaf.space.low) | (value > leaf.space.high)
        found = f"returned {name} with {value[outside].flat[0]}"
        expected = f"{leaf.space.low[outside].flat[0]} to {leaf.space.high[outside].flat[0]}, the bounds of its space"
    raise ContractBroken(env_id, _checked(made).call, found, expected)


def _checked(made: Any) -> Checked:
    while not isinstance(made, Checked):
        made = made.env
    return made


def _objection(made: gymnasium.Env[Any, Any]) -> str | None:
    """Return the first objection of Gymnasium's `check_env`, or None."""
    try:
        check_env(made, skip_render_check=True, skip_close_check=True)
    except ExpectedError:
        raise
    except Exception as error:  # noqa: BLE001  # assertions and errors of several kinds
        return f"Gymnasium's check_env objects: {' '.join(str(error).split())}"
    return None


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress Gymnasium's recommendations, such as that against unbounded spaces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
