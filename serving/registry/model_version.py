"""A version of a registered model."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

DIGEST_TAG = "sha256."
"""A version's tag `sha256.<file>` holds the hex sha256 of that file of its bundle."""

EVALUATION_TAG = "evaluation."
"""A version's tag `evaluation.<figure>` holds a figure of its evaluation, such as `evaluation.return_mean`."""


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
    """The URI of the registry that resolved it."""

    @property
    def digests(self) -> dict[str, str]:
        """The hex sha256 of each file by file name, as registered."""
        return {key.removeprefix(DIGEST_TAG): tag for key, tag in self.tags.items() if key.startswith(DIGEST_TAG)}

    @property
    def evaluation(self) -> dict[str, float]:
        """The figures of the evaluation, such as `return_mean`; empty if the version was not evaluated."""
        figures = {}
        for key, tag in self.tags.items():
            if key.startswith(EVALUATION_TAG):
                with suppress(ValueError):  # anyone can set tags
                    figures[key.removeprefix(EVALUATION_TAG)] = float(tag)
        return figures

    @property
    def pinned_uri(self) -> str:
        """The URI that always resolves to this version."""
        return f"models:/{self.name}/{self.version}"
