"""Reports the failures of environments from where they are sampled: this process, or remote environment runners.

RLlib pickles this module into checkpoints, so it imports this project's other packages only where it needs them.
"""

import logging
import warnings
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
import tree
from gymnasium.vector import SyncVectorEnv, VectorEnv, VectorWrapper
from ray.exceptions import RayError
from ray.rllib.env.env_runner_group import EnvRunnerGroup

T = TypeVar("T")

#: Seconds that remote runners have to report their failures.
_REPORT_TIMEOUT_S = 10.0


class CheckedVectorEnv(VectorWrapper):
    """Names the environment, the episode and the step where vectorized environments fail or return NaN or infinity.

    Single environments that Gymnasium steps one after the other name their failures themselves.

    Args:
        env: The vectorized environments, which reset themselves in the step after the last one of an episode.
        env_id: The id that messages call them by.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], env_id: str) -> None:
        super().__init__(env)
        self._env_id = env_id
        vectorized: Any = env.unwrapped
        if isinstance(vectorized, SyncVectorEnv):
            from serving.policy.environments.checked import checked

            vectorized.envs = [checked(each, env_id) for each in vectorized.envs]
        self._is_done = np.zeros(env.num_envs, np.bool_)
        self._steps, self._episodes = np.zeros(env.num_envs, np.int64), np.zeros(env.num_envs, np.int64)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Reset all environments. Raises EnvironmentMisbehaved."""
        self._is_done[:] = False
        self._steps[:] = 0
        self._episodes += 1
        observations, infos = self._named("reset", lambda: self.env.reset(seed=seed, options=options))
        self._check("observation", observations)
        return observations, infos

    def step(self, actions: Any) -> Any:
        """Step all environments. Raises EnvironmentMisbehaved."""
        self._episodes += self._is_done
        self._steps = np.where(self._is_done, 0, self._steps + 1)
        result = self._named("step", lambda: self.env.step(actions))
        observations, rewards, terminated, truncated, _ = result
        self._check("observation", observations)
        self._check("reward", rewards)
        self._is_done = terminated | truncated
        return result

    def _named(self, call: str, function: Callable[[], T]) -> T:
        from serving.errors import ExpectedError
        from serving.policy.environments.checked import raised

        try:
            return function()
        except ExpectedError:
            raise
        except Exception as error:  # an environment may raise any exception
            raise raised(self._env_id, f"{call} of its vectorized form", error) from error

    def _check(self, name: str, values: Any) -> None:
        """Raise ContractBroken if arrays `[environments, ...]` hold NaN or infinity."""
        for array in tree.flatten(values):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                from serving.policy.environments.errors import ContractBroken

                at = np.argwhere(~np.isfinite(array))[0]
                index, (value, *_) = at[0], array[~np.isfinite(array)]
                call = f"step {self._steps[index]} of episode {self._episodes[index]} in environment {index}"
                raise ContractBroken(self._env_id, call, f"returned the {name} {value}", "finite numbers")


class FailureReporting:
    """A mixin of environment runners: they name the failures of their environments, and stay to report them.

    RLlib's remote runners exit a minute after any exception, are started again, and nobody reads what it was.
    """

    #: The exception that a call in this process raised last.
    failure: Exception | None = None
    #: How often the environments were built.
    times_made = 0

    env: Any
    config: Any

    def make_env(self) -> None:
        """Build the environments."""
        self.times_made += 1
        # What Gymnasium's checker warns of is converted by `Checked`, and was reported before training.
        warnings.filterwarnings("ignore", module=r"gymnasium\.utils\.passive_env_checker")
        super().make_env()  # type: ignore[misc]  # RLlib's runner has it
        env = self.config.env
        self.env = CheckedVectorEnv(self.env, env if isinstance(env, str) else self.config.env_config["id"])

    def sample(self, **arguments: Any) -> Any:
        """Return episodes. Raises EnvironmentMisbehaved."""
        from serving.errors import ExpectedError

        try:
            return super().sample(**arguments)  # type: ignore[misc]  # as above
        except RuntimeError as error:
            if isinstance(error.__cause__, ExpectedError):  # RLlib's own loop raises RuntimeError from every error
                raise error.__cause__ from error.__cause__.__cause__
            raise

    def apply(self, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function with this runner, for the process that trains; keep the exception that it raises."""
        from pipeline.rllib.errors import EnvRunnerFailed
        from serving.errors import ExpectedError

        try:
            return func(self, *args, **kwargs)
        except ExpectedError as error:
            self.failure = error
            raise
        except RayError:
            raise
        except Exception as error:
            self.failure = EnvRunnerFailed(type(error).__name__, " ".join(str(error).split()))
            raise


def silence_repeated_failures() -> None:
    """Keep RLlib from logging with tracebacks what `raise_failure`, `sample` or the training loop report in a line."""
    for name in ("ray.rllib", "ray.rllib.execution.rollout_ops", "ray.rllib.utils.actor_manager"):
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not (
        (record.exc_info and record.name.endswith("actor_manager"))  # the second record of each failed call
        or "EnvRunner.apply()" in message
        or message.startswith("No samples returned from remote workers")
        or "Environment step failed" in message
    )


def raise_failure(group: EnvRunnerGroup) -> None:
    """Raise the failure of a remote runner, if one of those that live has any.

    Raises:
        EnvironmentMisbehaved: If an environment raised an exception or broke its contract.
        EnvRunnerFailed: If the runner itself raised an exception.
    """
    failures = group.foreach_env_runner(
        attrgetter("failure"), local_env_runner=False, healthy_only=False, timeout_seconds=_REPORT_TIMEOUT_S
    )
    for failure in failures:
        if failure is not None:
            raise failure
