"""What a search over settings may draw from: a file that a person edits, and the settings of each trial."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import numpy as np

from pipeline.config import TrainConfig, convert, nearest_of, setting
from pipeline.errors import InvalidConfig, UnknownSetting
from pipeline.tuning.errors import NotSearchable

#: What makes returns or the work of trials incomparable, or says where they run.
_FIXED = {
    "registered_model_name",
    "env_id",
    "env_kwargs",
    "promote",
    "seed",
    "max_env_steps",
    "target_return",
    "evaluation_interval",
    "evaluation_episodes",
    "patience",
    "checkpoint_interval_s",
    "num_env_runners",
    "num_learners",
    "num_gpus_per_learner",
    "torch_num_threads",
}

#: Draws after which a space counts as one that has no valid settings.
_ATTEMPTS = 100

_EXPECTED = "a list of values, or {from: LOW, to: HIGH}, with scale: log if wanted"


class _Domain(Protocol):
    def draw(self, rng: np.random.Generator) -> Any:
        """One value."""

    def ends(self) -> list[Any]:
        """Values that all have to be valid."""


@dataclass(frozen=True)
class Choice:
    """One of some values, each as likely."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """One of them."""
        return self.values[rng.integers(len(self.values))]

    def ends(self) -> list[Any]:
        """All of them."""
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """A number between two, both included, to three digits."""

    low: float
    high: float
    is_log: bool
    is_whole: bool

    def draw(self, rng: np.random.Generator) -> float:
        """A number, uniform on the scale."""
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)
        drawn = rng.uniform(low, high)
        number = math.exp(drawn) if self.is_log else drawn
        if self.is_whole:
            return round(number)
        return min(max(float(f"{number:.3g}"), self.low), self.high)

    def ends(self) -> list[Any]:
        """The least and the largest."""
        return [self.low, self.high]


@dataclass(frozen=True)
class SearchSpace:
    """What is the same for every trial, and what each draws.

    Trial 1 draws nothing: it has the settings as they are. What the others draw follows from their number and the seed.

    Attributes:
        settings: By name, those that every trial has.
        search: By name, what is drawn.
    """

    settings: Mapping[str, Any]
    search: Mapping[str, _Domain]

    @classmethod
    def of(cls, content: Mapping[str, Any], shared: Mapping[str, Any] | None = None) -> Self:
        """A search space from the content of its file.

        Args:
            content: Of the file.
            shared: Settings of every trial that override the file's.

        Raises:
            UnknownSetting: On a name that is none, with the nearest.
            NotSearchable: On a setting that trials have to share.
            InvalidConfig: On a value that is invalid with whatever is drawn beside it.
        """
        for part in content:
            if part not in {"settings", "search"}:
                raise UnknownSetting(part, nearest_of(part, ("settings", "search")))
        settings, search = (_mapping(part, content.get(part) or {}) for part in ("settings", "search"))
        space = cls(
            {name: convert(name, value) for name, value in {**settings, **(shared or {})}.items()},
            {name: _domain(name, value) for name, value in search.items()},
        )
        space.config(1)
        for name, domain in space.search.items():
            for value in domain.ends():
                space._draw(np.random.default_rng(0), {name: value})
        return space

    def draw(self, number: int) -> dict[str, Any]:
        """What a trial draws, by name; trials count from 1."""
        if number == 1:
            return {}
        return self._draw(np.random.default_rng([TrainConfig.of(self.settings).seed, number]), {})

    def config(self, number: int) -> TrainConfig:
        """All settings of a trial."""
        return TrainConfig.of({**self.settings, **self.draw(number)})

    def drawn(self, config: TrainConfig) -> dict[str, Any]:
        """Of a trial's settings, those that are searched."""
        return {name: getattr(config, name) for name in self.search}

    def as_content(self) -> dict[str, Any]:
        """What `of` reads."""
        search: dict[str, Any] = {}
        for name, domain in self.search.items():
            if isinstance(domain, Range):
                search[name] = {"from": domain.low, "to": domain.high, "scale": "log" if domain.is_log else "linear"}
            else:
                search[name] = domain.ends()
        return {"settings": dict(self.settings), "search": search}

    def _draw(self, rng: np.random.Generator, given: Mapping[str, Any]) -> dict[str, Any]:
        """Draw what is not given until it goes together."""
        for attempt in range(_ATTEMPTS):
            drawn = {name: domain.draw(rng) for name, domain in self.search.items()} | dict(given)
            try:
                TrainConfig.of({**self.settings, **drawn})
            except InvalidConfig:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                break
        return drawn


def changed(config: TrainConfig) -> dict[str, Any]:
    """The settings that differ from the defaults: what a file for `train --config` has to say."""
    return {name: value for name, value in asdict(config).items() if value != getattr(TrainConfig, name)}


def _mapping(part: str, content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise InvalidConfig(part, content, "one NAME: VALUE per line")
    return content


def _domain(name: str, value: Any) -> _Domain:
    if setting(name).name in _FIXED:
        raise NotSearchable(name)
    if isinstance(value, list) and value:
        domain: _Domain = Choice(tuple(convert(name, each) for each in value))
    elif isinstance(value, Mapping) and {"from", "to"} <= set(value) <= {"from", "to", "scale"}:
        domain = _range(name, value)
    else:
        raise InvalidConfig(name, value, _EXPECTED)
    return domain


def _range(name: str, value: Mapping[str, Any]) -> Range:
    low, high = (convert(name, value[end]) for end in ("from", "to"))
    scale = value.get("scale", "linear")
    numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high))
    if not numbers or not low < high < math.inf or scale not in {"linear", "log"} or (scale == "log" and low <= 0):
        raise InvalidConfig(name, dict(value), "from less than to, both numbers, and above 0 on a log scale")
    return Range(low, high, scale == "log", isinstance(low, int))
