"""The settings and the returns that rl-baselines3-zoo publishes for PPO."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

#: Episodes of an evaluation here; the zoo's returns are of more.
EPISODES = 100

#: Evaluations in the environment steps that the zoo trains for.
_EVALUATIONS = 25

#: Packages whose import registers the environments of which the id begins so.
_PACKAGES = {"MiniGrid": "minigrid"}

#: Entries that are no arguments of PPO.
_OF_ENVIRONMENTS = ("published", "n_envs", "n_timesteps", "env_wrapper", "normalize")

_ENTRIES: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())

ENV_IDS = tuple(_ENTRIES)


@dataclass(frozen=True)
class Zoo:
    """The zoo's entry of an environment.

    Attributes:
        env_id: The id in the zoo.
        published: The mean return of the policy that the zoo trained.
        published_std: The standard deviation of the returns of its episodes.
        max_steps: The environment steps that the zoo trains for.
        n_envs: The number of parallel environments.
        wrapper: The wrapper of each environment, `module:Class`, or None.
        normalize: Whether observations and rewards are normalized by running statistics.
        ppo: The arguments of stable-baselines3's PPO; schedules are functions of the remaining progress.
    """

    env_id: str
    published: float
    published_std: float
    max_steps: int
    n_envs: int
    wrapper: str | None
    normalize: bool
    ppo: dict[str, Any]

    @classmethod
    def of(cls, env_id: str) -> Self:
        """Return the entry of an environment. Raises KeyError if there is none."""
        entry = _ENTRIES[env_id]
        wrapper = entry.get("env_wrapper")
        return cls(
            env_id=env_id,
            published=entry["published"]["mean"],
            published_std=entry["published"]["std"],
            max_steps=int(float(entry["n_timesteps"])),
            n_envs=entry["n_envs"],
            wrapper=":".join(wrapper.rsplit(".", 1)) if wrapper else None,
            normalize=entry.get("normalize", False),
            ppo={name: _converted(value) for name, value in entry.items() if name not in _OF_ENVIRONMENTS},
        )

    @property
    def gymnasium_id(self) -> str:
        """The id that `gymnasium.make` takes; it imports the package that registers the environment."""
        package = _PACKAGES.get(self.env_id.split("-")[0])
        return f"{package}:{self.env_id}" if package else self.env_id

    @property
    def is_sampled(self) -> bool:
        """Whether the zoo evaluates with sampled actions; else with the most probable ones."""
        return self.env_id.startswith("MiniGrid")

    @property
    def within_error(self) -> float:
        """The published return less one standard error of the mean of 100 such episodes."""
        return self.published - self.published_std / math.sqrt(EPISODES)

    @property
    def evaluation_interval(self) -> int:
        """The environment steps between two evaluations."""
        return self.max_steps // _EVALUATIONS


def _converted(value: Any) -> Any:
    """Return a setting as PPO takes it; YAML reads `1e-3` as text."""
    if not isinstance(value, str):
        return value
    if value.startswith("lin_"):
        return _linear(float(value.removeprefix("lin_")))
    try:
        return float(value)
    except ValueError:
        return value


def _linear(initial: float) -> Callable[[float], float]:
    """Return the schedule from a value to 0; its argument falls from 1 to 0 during training."""
    return lambda remaining: remaining * initial
