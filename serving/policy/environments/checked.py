"""Names the call, the episode and the step where an environment fails or breaks Gymnasium's contract."""

import functools
import logging
import traceback
from pathlib import Path
from typing import Any

import gymnasium

from serving.errors import ExpectedError
from serving.policy.environments import conforming
from serving.policy.environments.conforming import Unfit
from serving.policy.environments.errors import ContractBroken, EnvironmentRaised

RESET_RETURNS = "(observation, info)"
STEP_RETURNS = "(observation, reward, terminated, truncated, info)"

_SHOWN_LINES = 2

_logger = logging.getLogger(__name__)


class Checked(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Returns observations, rewards and ends of episodes in the types of Gymnasium's contract, or raises an error.

    What can be converted without loss is: an observation of another floating-point dtype, a reward of shape (1,).

    Args:
        env: The environment, with all wrappers of the user.
        env_id: The id that messages call it by.

    Attributes:
        conversions: A description of each conversion so far.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], env_id: str) -> None:
        super().__init__(env)
        self.conversions: dict[str, None] = {}
        self._id = env_id
        _ = env.action_space  # raises AttributeError, as the next line does, where an environment declares no space
        self._conform = conforming.observation(env.observation_space, self._note)
        self._episode = self._step = 0
        self._seed: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment.

        Raises:
            EnvironmentRaised: It raised an exception.
            ContractBroken: It returned something else than an observation and an info.
        """
        self._episode, self._step, self._seed = self._episode + 1, 0, seed
        try:
            observation, info = conforming.values(self.env.reset(seed=seed, options=options), RESET_RETURNS, 2)
            return self._conform(observation), info
        except ExpectedError:
            raise
        except (Exception, SystemExit) as error:  # an environment may raise any exception
            raise self._explained(error) from error

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step.

        Raises:
            EnvironmentRaised: The environment raised an exception.
            ContractBroken: It returned something else than observation, reward, terminated, truncated and info.
        """
        self._step += 1
        note = self._note
        try:
            result = conforming.values(self.env.step(action), STEP_RETURNS, 5)
            observation, reward, terminated, truncated, info = result
            if terminated is not True and terminated is not False:
                terminated = conforming.flag(terminated, "terminated", note)
            if truncated is not True and truncated is not False:
                truncated = conforming.flag(truncated, "truncated", note)
            return self._conform(observation), conforming.reward(reward, note), terminated, truncated, info
        except ExpectedError:
            raise
        except (Exception, SystemExit) as error:  # an environment may raise any exception
            raise self._explained(error) from error

    def close(self) -> None:
        """Close the environment; an exception that it raises is only logged, once, because nothing depends on it."""
        try:
            super().close()  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  # as above
            _warn_once(str(raised(self._id, "close", error)))

    @property
    def call(self) -> str:
        """The last call, as messages name it."""
        seed = "" if self._seed is None else f" (seed {self._seed})"
        step = f"step {self._step} of" if self._step else "reset of"
        return f"{step} episode {self._episode}{seed}"

    def _note(self, conversion: str) -> None:
        self.conversions[conversion] = None

    def _explained(self, error: BaseException) -> ExpectedError:
        if isinstance(error, Unfit):
            return ContractBroken(self._id, self.call, error.found, error.expected)
        return raised(self._id, self.call, error)


@functools.cache
def _warn_once(message: str) -> None:
    """Log a warning unless this process has logged it before: an evaluation closes a hundred environments."""
    _logger.warning("%s", message)


def checked(env: gymnasium.Env[Any, Any], env_id: str) -> gymnasium.Env[Any, Any]:
    """Return the environment within `Checked`, or itself if one of its wrappers is that."""
    part: Any = env
    while isinstance(part, gymnasium.Wrapper):
        if isinstance(part, Checked):
            return env
        part = part.env
    return Checked(env, env_id)


def raised(env_id: str, call: str, error: BaseException) -> EnvironmentRaised:
    """Return the error that names a call, the exception that it raised, and the innermost lines of its traceback.

    The first line, of the function that made the call and handles the exception, is left out.
    """
    text = " ".join(str(error).split())
    exception = f"{type(error).__name__}: {text}" if text else type(error).__name__
    outer = (__file__, str(Path(gymnasium.__file__).parent))
    called = traceback.extract_tb(error.__traceback__)[1:]
    frames = [each for each in called if not each.filename.startswith(outer)]
    lines = "; ".join(
        f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in frames[-_SHOWN_LINES:]
    )
    return EnvironmentRaised(env_id, call, exception[:500], f", at {lines}" if lines else "")
