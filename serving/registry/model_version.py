"""A version of a registered model."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from time import monotonic
from typing import Any, Self

from serving.experiments.errors import ExperimentInvalid
from serving.experiments.experiment import Experiment, tag_key
from serving.registry.model_uri import ModelUri

logger = logging.getLogger(__name__)

DIGEST_TAG = "sha256."
"""A version's tag `sha256.<file>` holds the hex sha256 of that file of its bundle."""

EVALUATION_TAG = "evaluation."
"""A version's tag `evaluation.<figure>` holds a figure of its evaluation, such as `evaluation.return_mean`."""

RESOLVED_FOR_S = 60.0
"""The time for which a replica that starts relies on what the command resolved."""


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model. Its number is pinned, so it never refers to another version."""

    uri: str
    """The requested URI, which may resolve to another version later."""
    name: str
    version: int
    run_id: str | None
    stage: str
    """The stage of the version when it was resolved, "None" without one."""
    tags: Mapping[str, str] = field(repr=False)
    registry: str = field(repr=False)
    """The URI of the registry that resolved it, without credentials: versions are written to disk."""
    challenger: "ModelVersion | None" = None
    """The other version of an experiment that its tags describe, None if there is none or it cannot be found."""

    def to_json(self) -> dict[str, Any]:
        """Return the version for JSON."""
        content = asdict(self)
        if self.challenger is None:
            del content["challenger"]  # earlier releases do not know it
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the version that `to_json` described. Raises TypeError for other content."""
        challenger = content.get("challenger")
        return cls(**{**content, "challenger": challenger and cls(**challenger)})

    @property
    def experiment(self) -> Experiment | None:
        """The experiment that its tags describe for the stage or alias of its URI, also if it has been decided.

        A tag that cannot be read is logged, and counts as none.
        """
        uri = ModelUri.parse(self.uri)
        tag = self.tags.get(tag_key(stage=uri.stage, alias=uri.alias) or "")
        if tag is None:
            return None
        try:
            experiment = Experiment.from_tag(tag)
        except ExperimentInvalid as error:
            warn_once(f"version {self.version} of '{self.name}': {error}")
            return None
        return experiment if experiment.champion == self.version else None

    @property
    def digests(self) -> dict[str, str]:
        """The hex sha256 of each file by file name, as registered."""
        return {key.removeprefix(DIGEST_TAG): tag for key, tag in self.tags.items() if key.startswith(DIGEST_TAG)}

    @property
    def evaluation(self) -> dict[str, float]:
        """The figures of the evaluation, such as `return_mean`; empty if the version was not evaluated."""
        figures = {key: number_of(self.tags, key) for key in self.tags if key.startswith(EVALUATION_TAG)}
        return {key.removeprefix(EVALUATION_TAG): number for key, number in figures.items() if number is not None}

    @property
    def pinned_uri(self) -> str:
        """The URI that always resolves to this version."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class Resolved:
    """The version that the command resolved on this machine, and the `monotonic` time at which it did.

    A replica that starts at once takes it instead of asking the registry again, for which it would import MLflow
    before its first answer.
    """

    version: ModelVersion
    at: float = field(default_factory=monotonic)

    @property
    def is_recent(self) -> bool:
        """Whether the registry need not be asked again. A replica may start at any later time, with this argument."""
        return 0 <= monotonic() - self.at < RESOLVED_FOR_S


@cache
def warn_once(message: str) -> None:
    """Log a warning once in this process: every poll would repeat it."""
    logger.warning("%s", message)


def number_of(tags: Mapping[str, str], name: str) -> float | None:
    """Return a tag as a finite number; None if it is missing or is none, because anyone can set tags."""
    try:
        number = float(tags[name])
    except (KeyError, ValueError):
        return None
    return number if math.isfinite(number) else None
