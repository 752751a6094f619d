"""The search space of a hyperparameter search: a YAML file, from which the settings of each trial are drawn."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.config import TrainConfig, convert, nearest_of, setting
from pipeline.errors import InvalidConfig, UnknownSetting
from pipeline.tuning.errors import NotSearchable

#: Draws after which a search space counts as invalid.
_ATTEMPTS = 100


@dataclass(frozen=True)
class Choice:
    """A uniform choice from a list of values."""

    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """Return one of the values."""
        return self.values[rng.integers(len(self.values))]

    def ends(self) -> list[Any]:
        """Return all values; the domain is valid if each of them is."""
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """A number between two bounds, both included, rounded to three significant digits."""

    low: float
    high: float
    is_log: bool
    is_whole: bool

    def draw(self, rng: np.random.Generator) -> float:
        """Return a number, uniform on the linear or logarithmic scale."""
        low, high = (math.log(self.low), math.log(self.high)) if self.is_log else (self.low, self.high)
        drawn = rng.uniform(low, high)
        number = math.exp(drawn) if self.is_log else drawn
        if self.is_whole:
            return round(number)
        return min(max(float(f"{number:.3g}"), self.low), self.high)

    def ends(self) -> list[Any]:
        """Return the bounds; the domain is valid if both are."""
        return [self.low, self.high]


@dataclass(frozen=True)
class SearchSpace:
    """The settings that all trials share, and the domains from which each trial draws the others.

    Trial 1 draws nothing. The draws of the other trials depend only on their number and the seed.

    Attributes:
        settings: The shared settings by name.
        search: The domains of the searched settings by name.
    """

    settings: Mapping[str, Any]
    search: Mapping[str, Choice | Range]

    @classmethod
    def of(
        cls,
        content: Mapping[str, Any],
        shared: Mapping[str, Any] | None = None,
        chosen: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {},
    ) -> Self:
        """Return the search space that the content of a file describes.

        Args:
            content: The content of the file.
            shared: Settings that override the file's.
            chosen: Returns the settings that all trials share besides these.

        Raises:
            UnknownSetting: On an unknown name; the error names the nearest known one.
            NotSearchable: On a searched setting that all trials have to share.
            InvalidConfig: On a value that no draw of the other settings makes valid.
        """
        for part in content:
            if part not in {"settings", "search"}:
                raise UnknownSetting(part, nearest_of(part, ("settings", "search")))
        settings, search = (_mapping(part, content.get(part) or {}) for part in ("settings", "search"))
        given = {name: convert(name, value) for name, value in {**settings, **(shared or {})}.items()}
        domains = {name: _domain(name, value) for name, value in search.items()}
        space = cls({**chosen(given), **given}, domains)
        space.config(1)
        for name, domain in space.search.items():
            for value in domain.ends():
                space._draw(np.random.default_rng(0), {name: value})
        return space

    def draw(self, number: int) -> dict[str, Any]:
        """Return the settings that a trial draws, by name; trial numbers start at 1."""
        if number == 1:
            return {}
        return self._draw(np.random.default_rng([TrainConfig.of(self.settings).seed, number]), {})

    def config(self, number: int) -> TrainConfig:
        """Return all settings of a trial."""
        return TrainConfig.of({**self.settings, **self.draw(number)})

    def searched(self, config: TrainConfig) -> dict[str, Any]:
        """Return the searched settings of a configuration by name."""
        return {name: getattr(config, name) for name in self.search}

    def shared(self) -> dict[str, Any]:
        """Return the settings that all trials share, the defaults among them, by name."""
        return {name: value for name, value in self.config(1).as_params().items() if name not in self.search}

    def as_content(self) -> dict[str, Any]:
        """Return the content from which `of` makes this search space."""
        search: dict[str, Any] = {}
        for name, domain in self.search.items():
            if isinstance(domain, Range):
                search[name] = {"from": domain.low, "to": domain.high, "scale": "log" if domain.is_log else "linear"}
            else:
                search[name] = domain.ends()
        return {"settings": dict(self.settings), "search": search}

    def _draw(self, rng: np.random.Generator, given: Mapping[str, Any]) -> dict[str, Any]:
        """Draw the settings that are not given until the configuration is valid."""
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


def _mapping(part: str, content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise InvalidConfig(part, content, "one NAME: VALUE per line")
    return content


def _domain(name: str, value: Any) -> Choice | Range:
    if not setting(name).metadata["searchable"]:
        raise NotSearchable(name)
    if isinstance(value, list) and value:
        return Choice(tuple(convert(name, each) for each in value))
    if isinstance(value, Mapping) and {"from", "to"} <= set(value) <= {"from", "to", "scale"}:
        return _range(name, value)
    raise InvalidConfig(name, value, "a list of values, or {from: LOW, to: HIGH}, with scale: log if wanted")


def _range(name: str, value: Mapping[str, Any]) -> Range:
    low, high = (convert(name, value[end]) for end in ("from", "to"))
    scale = value.get("scale", "linear")
    numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high))
    if not numbers or not low < high < math.inf or scale not in {"linear", "log"} or (scale == "log" and low <= 0):
        raise InvalidConfig(name, dict(value), "from less than to, both numbers, and above 0 on a log scale")
    return Range(low, high, scale == "log", isinstance(low, int))
