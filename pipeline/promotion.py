"""Which version stands in which stage of the registry."""

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import mlflow
from mlflow.entities.model_registry import ModelVersion

from serving.registry import check_tracking_server, resolve


@dataclass(frozen=True)
class VersionRow:
    """A line of the table of versions.

    Attributes:
        version: Its number.
        stage: `None` as MLflow writes it if it stands in no stage.
        aliases: Without the `@`.
        return_mean: Of its last evaluation, if there was one.
        age_s: Seconds since it was registered.
    """

    version: int
    stage: str
    aliases: tuple[str, ...]
    return_mean: float | None
    age_s: float


def promote(name: str, version: int, stage: str) -> None:
    """Put a version into a stage, and archive what stood there.

    Raises:
        TrackingServerUnreachable: Within seconds.
        ModelUnknown: If nothing is registered under this name.
        VersionMissing: If it has no such version.
    """
    check_tracking_server()
    resolve(f"models:/{name}/{version}")
    with _stages():
        # MLflow archives what stands in an active stage, and refuses to be asked to for the others.
        archive = stage in ("Staging", "Production")
        client = mlflow.MlflowClient()
        client.transition_model_version_stage(name, str(version), stage, archive_existing_versions=archive)


def versions(name: str) -> list[VersionRow]:
    """All versions of a registered model, the newest first.

    Raises:
        TrackingServerUnreachable: Within seconds.
        ModelUnknown: If nothing is registered under this name.
    """
    check_tracking_server()
    resolve(f"models:/{name}/latest")
    client = mlflow.MlflowClient()
    with _stages():
        aliases = client.get_registered_model(name).aliases
        found = client.search_model_versions(f"name = '{name}'")
    return sorted((_row(version, aliases) for version in found), key=lambda row: -row.version)


def _row(version: ModelVersion, aliases: Mapping[str, str]) -> VersionRow:
    return_mean = version.tags.get("evaluation.return_mean")
    return VersionRow(
        version=int(version.version),
        stage=version.current_stage or "None",
        aliases=tuple(sorted(alias for alias, number in aliases.items() if int(number) == int(version.version))),
        return_mean=None if return_mean is None else float(return_mean),
        age_s=time.time() - version.creation_timestamp / 1000,
    )


@contextmanager
def _stages() -> Iterator[None]:
    """Stages work throughout MLflow 3, with a warning at each call that they will go."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
