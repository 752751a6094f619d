"""The target of a promotion: a stage or an alias of a registered model, through which servers find a version."""

import re
from dataclasses import dataclass
from typing import Self

import mlflow

from pipeline.registry.errors import InvalidAlias
from serving.registry.tracking import stage_warnings_ignored

#: The stages that hold one version: assigning another one archives it. `Archived` and `None` hold any number.
STAGES = ("Production", "Staging")

#: What MLflow accepts as an alias, which only its private functions know.
_ALIAS = r"(?!latest$)(?!v\d+$)[\w-]{1,200}"


@dataclass(frozen=True)
class Target:
    """The stage or alias `name` of the registered model `model`. It refers to one version or to none."""

    model: str
    name: str
    is_alias: bool = False

    @classmethod
    def of(cls, model: str, stage: str, alias: str | None) -> Self:
        """Return the alias if one is given, else the stage.

        Raises:
            InvalidAlias: If MLflow does not accept the alias, or its history would not fit into the key of a tag.
        """
        if alias is not None and not re.fullmatch(_ALIAS, alias, re.IGNORECASE):
            raise InvalidAlias(alias)
        return cls(model, stage) if alias is None else cls(model, alias, is_alias=True)

    def __str__(self) -> str:
        return f"alias '{self.name}'" if self.is_alias else f"stage '{self.name}'"

    @property
    def uri(self) -> str:
        """The URI that serving resolves: `models:/NAME/STAGE` or `models:/NAME@ALIAS`."""
        return f"models:/{self.model}@{self.name}" if self.is_alias else f"models:/{self.model}/{self.name}"

    @property
    def holds_one_version(self) -> bool:
        """Whether another version replaces the current one. It is so for aliases and for the stages of servers."""
        return self.is_alias or self.name in STAGES

    def current_version(self) -> int | None:
        """Return the version that the target refers to. Of several in a stage it is the highest, as in MLflow."""
        client = mlflow.MlflowClient()
        if self.is_alias:
            aliases = client.get_registered_model(self.model).aliases
            return int(aliases[self.name]) if self.name in aliases else None
        with stage_warnings_ignored():
            found = client.get_latest_versions(self.model, [self.name])
        return max((int(version.version) for version in found), default=None)

    def assign(self, version: int) -> None:
        """Make the target refer to a version. The version that was in the stage moves to `Archived`."""
        client = mlflow.MlflowClient()
        if self.is_alias:
            client.set_registered_model_alias(self.model, self.name, str(version))
            return
        with stage_warnings_ignored():
            client.transition_model_version_stage(
                self.model, str(version), self.name, archive_existing_versions=self.name in STAGES
            )
