"""A version of a registered model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic

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


def number_of(tags: Mapping[str, str], name: str) -> float | None:
    """Return a tag as a finite number; None if it is missing or is none, because anyone can set tags."""
    try:
        number = float(tags[name])
    except (KeyError, ValueError):
        return None
    return number if math.isfinite(number) else None
