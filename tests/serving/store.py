"""A registry to register small policies in."""

import contextlib
from pathlib import Path
from typing import NamedTuple

import pytest

from serving.policy.bundle import Bundle
from tests.serving.policies import CARTPOLE_BUNDLE, digest_tags


class Store(NamedTuple):
    """A SQLite registry in a temporary directory."""

    uri: str
    directory: Path

    def register(
        self,
        name: str,
        bundle: Bundle = CARTPOLE_BUNDLE,
        *,
        stage: str | None = None,
        alias: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> int:
        """Register the bundle's next version and return its number."""
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        client = MlflowClient(self.uri)
        with contextlib.suppress(MlflowException):
            client.create_registered_model(name)
        tags = {**digest_tags(bundle), "evaluation.return_mean": "500.0"} if tags is None else tags
        quote = '"' if "'" in name else "'"
        number = len(client.search_model_versions(f"name={quote}{name}{quote}")) + 1
        source = self.directory / "artifacts" / name / str(number)
        source.mkdir(parents=True)
        (source / "model.onnx").write_bytes(bundle.graph)
        (source / "policy.json").write_bytes(bundle.policy)
        version = client.create_model_version(name, source.as_uri(), tags=tags)
        if stage:
            self.promote(name, int(version.version), stage, archive=False)
        if alias:
            client.set_registered_model_alias(name, alias, version.version)
        return int(version.version)

    def promote(self, name: str, version: int, stage: str = "Production", *, archive: bool = True) -> None:
        """Move a version to a stage, as MLflow's UI does."""
        from mlflow import MlflowClient

        with pytest.warns(FutureWarning):
            MlflowClient(self.uri).transition_model_version_stage(
                name, str(version), stage, archive_existing_versions=archive
            )

    def file(self, name: str, version: int, file: str) -> Path:
        """Return the path of a version's file in the artifact store."""
        return self.directory / "artifacts" / name / str(version) / file
