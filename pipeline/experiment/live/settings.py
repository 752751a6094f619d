"""What commands keep of an experiment in its tag, beside what replicas act on."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from pipeline.experiment.statistics.rules import Rules
from serving.experiments.errors import ExperimentInvalid

PROMOTED = "promoted"
"""The challenger is in the target now."""
ROLLED_BACK = "rolled back"
"""The challenger is worse; the champion stays."""
BLOCKED = "blocked"
"""The returns cannot be trusted; the champion stays."""
INCONCLUSIVE = "inconclusive"
"""The budget or the time was used up; the champion stays."""
REPORTED = "reported"
"""It ended by its time, and was to be reported only."""
STOPPED = "stopped"
"""A person stopped it."""
SUPERSEDED = "superseded"
"""Somebody assigned another version to the target."""

JUDGED = (PROMOTED, ROLLED_BACK, BLOCKED, INCONCLUSIVE, REPORTED)
"""The decisions that the experiment reached itself; they stand in the target's history."""

AUTO, REPORT = "auto", "report"
"""What a controller does with a decision."""

MAX_WHY = 600
"""The most characters of a reason: a tag holds 5,000."""


@dataclass(frozen=True)
class Settings:
    """The settings of an experiment, and how it ended.

    Attributes:
        experience: The URI that the servers record to.
        rules: The rules of the decision.
        shares: The challenger's shares, one after the other.
        reward_wait_s: How long after its assignment an episode may report its return.
        run_id: Its MLflow run.
        started_s: When it was started, in seconds since 1970.
        started_by: Who started it.
        record_wait_s: How long it takes until what a server recorded is at the experience URI.
        step_episodes: The challenger's settled episodes at a share before the next one follows.
        delay_s: How far in the future a share begins, so that all replicas know of it by then.
        decide: AUTO or REPORT.
        decided_at: When the decision was written, in UTC, ISO 8601. It is also the key of the event in the history, so
            that an event that is written again replaces itself.
        why: The figures of the decision.
        finished: Whether everything that follows from the decision was done.
    """

    experience: str
    rules: Rules
    shares: tuple[float, ...]
    reward_wait_s: float
    run_id: str
    started_s: float
    started_by: str
    record_wait_s: float = 60.0
    step_episodes: int = 50
    delay_s: float = 10.0
    decide: str = AUTO
    decided_at: str | None = None
    why: str = ""
    finished: bool = False

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the settings that `to_json` described. Raises ExperimentInvalid."""
        try:
            rules = dict(content["rules"])
            if rules.get("return_bounds") is not None:
                rules["return_bounds"] = tuple(rules["return_bounds"])
            return cls(**{**content, "rules": Rules(**rules), "shares": tuple(content["shares"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ExperimentInvalid(f"its settings: {type(error).__name__}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON, without what has its default."""
        return {**_given(self), "rules": _given(self.rules), "shares": list(self.shares)}

    @property
    def longest_wait_s(self) -> float:
        """How long after its assignment the outcome of an episode is known."""
        return self.reward_wait_s + self.record_wait_s


def _given(settings: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that do not have their default."""
    return {each.name: getattr(settings, each.name) for each in fields(settings) if _differs(settings, each)}


def _differs(settings: Any, field: Any) -> bool:
    return bool(getattr(settings, field.name) != field.default)
