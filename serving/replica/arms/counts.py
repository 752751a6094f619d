"""Counts the requests of the arms of an experiment: what `/model`, `serving status` and the metrics show of it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from serving.experiments.assignment import CHALLENGER, CHAMPION
from serving.experiments.experiment import Experiment
from serving.policy.spaces import Json
from serving.telemetry.numbers import Number


@dataclass
class ArmCounts:
    """The requests of one experiment that this replica answered."""

    experiment: str
    """The identifier of the experiment."""
    answered: dict[str, int] = field(default_factory=lambda: {CHAMPION: 0, CHALLENGER: 0})
    """The answered requests by arm; those that the champion answered for the challenger are the challenger's."""
    failed: int = 0
    """Requests of the challenger's arm that the champion answered, because the challenger failed."""

    def numbers(self) -> Iterator[Number]:
        """Yield the metrics."""
        for arm, count in self.answered.items():
            yield Number("policy_experiment_requests", count, labels={"arm": arm})
        yield Number("policy_experiment_failed", self.failed)

    def describe(self, experiment: Experiment, *, takes_part: bool) -> dict[str, Json]:
        """Return the member `experiment` of `/model`.

        Args:
            experiment: the experiment that is counted here.
            takes_part: whether the replica has loaded the challenger, which otherwise gets no episode.
        """
        return {
            "id": experiment.id,
            "champion": experiment.champion,
            "challenger": experiment.challenger,
            "share": experiment.share_at(time.time()) if takes_part else 0.0,
            "expires_at": datetime.fromtimestamp(experiment.expires_s, UTC).isoformat(timespec="seconds"),
            "decision": experiment.decision,
            "answered": dict(self.answered),
            "failed": self.failed,
        }
