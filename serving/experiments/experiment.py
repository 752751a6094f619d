"""The state of an experiment: one tag of the champion's version, so that each poll of the registry returns it.

    experiment.stage.Production = {"format": 1, "id": ..., "salt": ..., "champion": 3, "challenger": 4,
                                   "shares": [[start_s, share], ...], "expires_s": ..., "decision": null, ...}

Replicas act on these keys, and commands keep their own under "settings". The tag is part of the champion's version:
once another version is in the stage, whoever put it there, the experiment has ended.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from serving.experiments.assignment import arm_of
from serving.experiments.errors import ExperimentInvalid

FORMAT = 1

_EXPERIMENT, _LEASE = "experiment.", ".controller"

MAX_TAG_LENGTH = 5000
"""The most characters that MLflow stores in a tag."""


class Step(NamedTuple):
    """From `start_s` on, in seconds since 1970, the challenger gets that share of the episodes that begin."""

    start_s: float
    share: float


@dataclass(frozen=True)
class Experiment:
    """An experiment on the version `champion` of a stage or alias, with the version `challenger` of the same model.

    Attributes:
        id: Its name; it stands in recorded decisions.
        salt: What the assignment is drawn with.
        champion: The number of the version that the stage or alias refers to.
        challenger: The number of the other version.
        shares: The steps of the challenger's share, by time. The first begins in the future, so that all replicas have
            loaded the challenger by then.
        expires_s: When it ends by itself, in seconds since 1970; the champion then answers all episodes.
        decision: How it ended, None while it runs.
        settings: What only commands use.
    """

    id: str
    salt: str
    champion: int
    challenger: int
    shares: tuple[Step, ...]
    expires_s: float
    decision: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_tag(cls, text: str) -> Self:
        """Return the experiment that `to_tag` described. Raises ExperimentInvalid."""
        try:
            content = json.loads(text)
            if (found := content.pop("format")) != FORMAT:
                raise ExperimentInvalid(f"it has the format {found!r}, this release reads {FORMAT}")
            experiment = cls(**content | {"shares": tuple(Step(*step) for step in content["shares"])})
            fault = experiment._fault()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ExperimentInvalid(f"{type(error).__name__}: {error}") from error
        if fault:
            raise ExperimentInvalid(fault)
        return experiment

    def to_tag(self) -> str:
        """Return the experiment as the value of a tag. Raises ExperimentInvalid if MLflow could not store it."""
        content = {"format": FORMAT, **vars(self), "shares": [list(step) for step in self.shares]}
        text = json.dumps(content, separators=(",", ":"))
        if fault := self._fault():
            raise ExperimentInvalid(fault)
        if len(text) > MAX_TAG_LENGTH:
            raise ExperimentInvalid(f"it has {len(text)} characters, MLflow stores {MAX_TAG_LENGTH} in a tag")
        return text

    def is_running_at(self, time_s: float) -> bool:
        """Return whether it has not ended at a time."""
        return self.decision is None and time_s < self.expires_s

    def share_at(self, time_s: float) -> float:
        """Return the challenger's share of the episodes that begin at a time; 0 before the start and after the end."""
        if not self.is_running_at(time_s):
            return 0.0
        return next((step.share for step in reversed(self.shares) if time_s >= step.start_s), 0.0)

    def arm(self, episode: bytes, time_s: float) -> str | None:
        """Return the arm of an episode that begins at a time, None if it is not part of the experiment.

        Args:
            episode: The hash of the episode, or NO_EPISODE.
            time_s: The time in seconds since 1970.
        """
        share = self.share_at(time_s)
        return arm_of(self.salt, episode, share) if share else None

    def _fault(self) -> str | None:
        """Return what contradicts the description of the attributes, None if nothing does."""
        numbers = (self.champion, self.challenger)
        if not all(type(number) is int and number > 0 for number in numbers) or self.champion == self.challenger:
            return f"champion and challenger are {self.champion!r} and {self.challenger!r}, expected two versions"
        if not all(isinstance(text, str) and text for text in (self.id, self.salt)):
            return "its id or its salt is no text"
        if not (self.decision is None or isinstance(self.decision, str)) or not isinstance(self.settings, Mapping):
            return "its decision is no text, or its settings are no object"
        starts, shares = [step.start_s for step in self.shares], [step.share for step in self.shares]
        times_are_numbers = all(math.isfinite(time) for time in (*starts, self.expires_s))
        if not times_are_numbers or starts != sorted(starts):
            return "its times are not in order"
        if not shares or shares != sorted(shares) or not 0 < shares[0] <= shares[-1] <= 1:
            return f"its shares are {shares}, expected rising numbers above 0, up to 1"
        return None


def tag_key(*, stage: str | None = None, alias: str | None = None) -> str | None:
    """Return the key of the tag for a stage or an alias; None for neither, where no experiment is possible."""
    if alias is not None:
        return f"experiment.alias.{alias}"
    return None if stage is None else f"experiment.stage.{stage}"


def lease_key(key: str) -> str:
    """Return the key of the tag with which a controller of the experiment in the tag `key` keeps others from acting."""
    return key + _LEASE


def without_leases(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags without those of controllers, which change all the time and mean nothing to a server."""
    return {key: tag for key, tag in tags.items() if not (key.startswith(_EXPERIMENT) and key.endswith(_LEASE))}
