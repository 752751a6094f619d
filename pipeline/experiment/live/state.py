"""The state of an experiment in the registry: reads its tag, and changes it without undoing what others changed."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

import mlflow

from pipeline.experiment.errors import ExperimentUnknown
from pipeline.experiment.live.settings import MAX_WHY, Settings
from pipeline.registry.target import Target
from serving.experiments.errors import ExperimentInvalid
from serving.experiments.experiment import Experiment, Step, tag_key
from serving.registry.registry import versions_of


@dataclass(frozen=True)
class Live:
    """An experiment on a target, as its tag describes it.

    Attributes:
        target: The stage or alias.
        experiment: What replicas act on.
        settings: What commands keep.
    """

    target: Target
    experiment: Experiment
    settings: Settings

    @classmethod
    def from_tag(cls, target: Target, tag: str) -> Self:
        """Return the experiment of a tag. Raises ExperimentInvalid."""
        experiment = Experiment.from_tag(tag)
        return cls(target, replace(experiment, settings={}), Settings.from_json(experiment.settings))

    def to_tag(self) -> str:
        """Return the value of the tag. Raises ExperimentInvalid if MLflow could not store it."""
        return replace(self.experiment, settings=self.settings.to_json()).to_tag()

    @property
    def is_running(self) -> bool:
        """Whether it has no decision yet."""
        return self.experiment.decision is None

    @property
    def is_open(self) -> bool:
        """Whether it runs, or something that follows from its decision is still to be done."""
        return self.is_running or not self.settings.finished

    @property
    def deadline_s(self) -> float:
        """When the outcomes of all its episodes are known, in seconds since 1970."""
        return self.experiment.expires_s + self.settings.longest_wait_s

    @property
    def ended_s(self) -> float:
        """When it was decided, in seconds since 1970; infinite before."""
        at = self.settings.decided_at
        return math.inf if at is None else datetime.fromisoformat(at).timestamp()

    @property
    def next_share(self) -> float | None:
        """The share that follows, None at the last one."""
        reached = len(self.experiment.shares)
        return self.settings.shares[reached] if reached < len(self.settings.shares) else None

    def raised(self, start_s: float) -> "Live":
        """Return the experiment with the next share from a time on."""
        assert self.next_share is not None  # noqa: S101 - callers have looked
        steps = (*self.experiment.shares, Step(start_s, self.next_share))
        return replace(self, experiment=replace(self.experiment, shares=steps))

    def decided(self, decision: str, at: str, why: str) -> "Live":
        """Return the experiment with a decision."""
        settings = replace(self.settings, decided_at=at, why=why[:MAX_WHY])
        return replace(self, experiment=replace(self.experiment, decision=decision), settings=settings)

    def finished(self) -> "Live":
        """Return the experiment, with everything done that follows from its decision."""
        return replace(self, settings=replace(self.settings, finished=True))


def key_of(target: Target) -> str:
    """Return the key of the tag for a target."""
    return str(tag_key(alias=target.name) if target.is_alias else tag_key(stage=target.name))


def find(target: Target, id: str | None = None) -> Live | None:  # noqa: A002 - the name of the field
    """Return the experiment of a target: the one that is open, else the one that was started last, None without any.

    With an id, return that one or None. Tags that cannot be read are skipped, as replicas do.
    """
    found = [each for version in versions_of(target.model) if (each := _of(target, version)) is not None]
    chosen = [each for each in found if id in {None, each.experiment.id}]
    return max(chosen, key=lambda each: (each.is_open, each.settings.started_s), default=None)


def find_open(target: Target) -> Live:
    """Return the open experiment of a target. Raises ExperimentUnknown if there is none."""
    found = find(target)
    if found is None or not found.is_open:
        raise ExperimentUnknown(str(target), target.model)
    return found


def find_superseded(target: Target) -> Live | None:
    """Return the running experiment of a target that another version was assigned to meanwhile, None without one."""
    found = find(target)
    if found is None or not found.is_running or found.experiment.champion == target.current_version():
        return None
    return found


def read(target: Target, champion: int) -> Live | None:
    """Return the experiment that the tag of a version describes, None without one."""
    return _of(target, mlflow.MlflowClient().get_model_version(target.model, str(champion)))


def write(live: Live) -> None:
    """Write the tag. Raises ExperimentInvalid."""
    _set_tag(live.target, live.experiment.champion, key_of(live.target), live.to_tag())


def update(live: Live, change: Callable[[Live], Live]) -> Live:
    """Change an experiment, unless it has changed since it was read; return what is in the registry then.

    MLflow cannot compare and set, so the tag is read directly before it is written, and the lease of the controller
    keeps others away meanwhile.

    Raises:
        ExperimentUnknown: Somebody removed the tag, or another experiment has begun.
    """
    now = read(live.target, live.experiment.champion)
    if now is None or now.experiment.id != live.experiment.id:
        raise ExperimentUnknown(str(live.target), live.target.model)
    if (now.experiment, now.settings) != (live.experiment, live.settings):
        return now
    changed = change(now)
    write(changed)
    return changed


def _of(target: Target, version: Any) -> Live | None:
    """Return the experiment of MLflow's description of a version, None if its tag has none."""
    tag = version.tags.get(key_of(target))
    if tag is None:
        return None
    try:
        live = Live.from_tag(target, tag)
    except ExperimentInvalid:
        return None
    return live if live.experiment.champion == int(version.version) else None


def _set_tag(target: Target, version: int, key: str, value: str) -> None:
    mlflow.MlflowClient().set_model_version_tag(target.model, str(version), key, value)
