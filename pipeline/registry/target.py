"""Where a version can stand so that serving finds it: a stage, or an alias."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import mlflow

#: The stages in which MLflow archives what stood there before. `Archived` and `None` hold many.
STAGES = ("Production", "Staging")


@dataclass(frozen=True)
class Slot:
    """A stage or an alias of one registered model; one version stands in it, or none.

    Attributes:
        model: The registered model.
        name: Of the stage or the alias.
        is_alias: Which of the two.
    """

    model: str
    name: str
    is_alias: bool = False

    @classmethod
    def of(cls, model: str, stage: str, alias: str | None) -> Self:
        """The alias if one is given, else the stage."""
        return cls(model, stage) if alias is None else cls(model, alias, is_alias=True)

    def __str__(self) -> str:
        return f"alias '{self.name}'" if self.is_alias else f"stage '{self.name}'"

    @property
    def uri(self) -> str:
        """What serving resolves: `models:/NAME/STAGE` or `models:/NAME@ALIAS`."""
        return f"models:/{self.model}@{self.name}" if self.is_alias else f"models:/{self.model}/{self.name}"

    def occupant(self) -> int | None:
        """The version that stands here: with several in a stage the highest, as MLflow resolves it."""
        client = mlflow.MlflowClient()
        if self.is_alias:
            aliases = client.get_registered_model(self.model).aliases
            return int(aliases[self.name]) if self.name in aliases else None
        with stages():
            found = client.get_latest_versions(self.model, [self.name])
        return max((int(version.version) for version in found), default=None)

    def put(self, version: int) -> None:
        """Let this version stand here, and no other; what stood in a stage is archived."""
        client = mlflow.MlflowClient()
        if self.is_alias:
            client.set_registered_model_alias(self.model, self.name, str(version))
            return
        with stages():
            client.transition_model_version_stage(
                self.model, str(version), self.name, archive_existing_versions=self.name in STAGES
            )


@contextmanager
def stages() -> Iterator[None]:
    """Stages work throughout MLflow 3, with a warning at each call that they will go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
