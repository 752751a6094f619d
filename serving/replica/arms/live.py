"""The experiment of one replica: its arms while it runs, and what was counted since it began."""

from collections.abc import Iterator

from serving.experience.episodes import EpisodeHasher
from serving.policy.spaces import Json
from serving.registry.model_version import ModelVersion
from serving.replica.arms.arms import Arms, Challenge
from serving.replica.arms.counts import ArmCounts
from serving.replica.served_policy import ServedPolicy
from serving.telemetry.numbers import Number

PROMOTED = "promoted"
"""The decision of an experiment whose challenger becomes the champion, as commands write it."""


class LiveExperiment:
    """The experiment in which a replica takes part. `arms` is replaced as a whole, so reading it needs no lock.

    Args:
        hashed: turns the names of episodes into the hashes that arms are drawn from.
    """

    def __init__(self, hashed: EpisodeHasher) -> None:
        self.arms: Arms | None = None
        """The arms, None while there is no experiment or its challenger cannot be served."""
        self._hashed = hashed
        self._counts: ArmCounts | None = None

    def begin(self, challenge: Challenge, champion: ServedPolicy) -> None:
        """Assign episodes from now on, or with other shares. Both versions are ready to serve."""
        if self._counts is None or self._counts.experiment != challenge.experiment.id:
            self._counts = ArmCounts(challenge.experiment.id)
        self.arms = Arms(challenge, champion, self._hashed, self._counts)

    def replace_champion(self, champion: ServedPolicy) -> None:
        """Go on with a champion whose tags have changed, or end, if another version is the champion now."""
        arms = self.arms
        if arms is None:
            return
        if arms.experiment.champion == champion.version.version:
            self.begin(Challenge(arms.experiment, arms.challenger), champion)
        else:
            self.arms = None

    def end(self, champion: ModelVersion) -> ServedPolicy | None:
        """End the experiment. Return the challenger if it was decided to promote it: its episodes go on."""
        arms, self.arms = self.arms, None
        decided = champion.experiment
        if arms is None or decided is None or decided.id != arms.experiment.id:
            return None
        return arms.challenger if decided.decision == PROMOTED else None

    def describe(self, champion: ModelVersion) -> dict[str, Json] | None:
        """Return the member `experiment` of `/model`: that of the champion's tag, also after its end, or None."""
        experiment = champion.experiment
        if experiment is None:
            return None
        is_counted = self._counts is not None and self._counts.experiment == experiment.id
        counts = self._counts if self._counts is not None and is_counted else ArmCounts(experiment.id)
        return counts.describe(experiment, takes_part=self.arms is not None)

    def numbers(self) -> Iterator[Number]:
        """Yield the metrics; none before the first experiment."""
        if self._counts is not None:
            yield from self._counts.numbers()


def is_promotion(new: ModelVersion, old: ModelVersion) -> bool:
    """Return whether a version replaces another one as its successor, whose episodes therefore end with the old one.

    A rollback withdraws a version at once. An equal number is the same version, with other tags or another stage.
    """
    experiment = old.experiment
    return new.version > old.version or (experiment is not None and experiment.challenger == new.version)
