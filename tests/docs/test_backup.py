"""The commands of docs/how-to/back-up-and-restore.md, with a real registry in SQLite and its folder of artifacts."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from serving.policy.bundle import Bundle
from serving.policy.errors import BundleFileMissing
from serving.registry import registry
from serving.registry.errors import DigestMismatch
from serving.registry.model_version import ModelVersion
from tests.docs.pages import DOCS, blocks
from tests.serving.policies import CARTPOLE_BUNDLE, digest_tags

PAGE = DOCS / "how-to" / "back-up-and-restore.md"
BACK_UP, CHANGE_PATHS = blocks(PAGE, "py")


@contextlib.contextmanager
def mlflow_at(directory: Path) -> Iterator[MlflowClient]:
    mlflow.set_tracking_uri(f"sqlite:///{directory}/mlflow.db")
    try:
        yield MlflowClient()
    finally:
        mlflow.set_tracking_uri(None)


@pytest.fixture
def live(tmp_path: Path, new_database) -> Path:
    """A directory with `mlflow.db` and `mlruns`, in which version 1 of a model is in production."""
    directory = tmp_path / "live"
    directory.mkdir()
    new_database(directory)
    with mlflow_at(directory) as client:
        register(client, tmp_path / "files")
    return directory


def register(client: MlflowClient, files: Path) -> None:
    """Register a version as training does: its files are those of a logged model."""
    logged = client.create_logged_model("0")
    files.mkdir()
    (files / "model.onnx").write_bytes(CARTPOLE_BUNDLE.graph)
    (files / "policy.json").write_bytes(CARTPOLE_BUNDLE.policy)
    client.log_model_artifacts(logged.model_id, str(files))
    client.finalize_logged_model(logged.model_id, "READY")
    client.create_registered_model("cartpole")
    source, tags = f"models:/{logged.model_id}", digest_tags(CARTPOLE_BUNDLE)
    client.create_model_version("cartpole", source, tags=tags, model_id=logged.model_id)
    with pytest.warns(FutureWarning):
        client.transition_model_version_stage("cartpole", "1", "Production")


def run(script: str, directory: Path) -> None:
    subprocess.run([sys.executable, "-c", script], cwd=directory, timeout=60, check=True)


def served_from(directory: Path, cache: Path) -> tuple[ModelVersion, Bundle]:
    """Resolve and fetch the version in production, as a server does."""
    with mlflow_at(directory):
        version = registry.resolve("models:/cartpole/Production")
        return version, registry.fetch(version, cache)


def restored(live: Path, directory: Path) -> Path:
    """Back up, lose everything, and restore into an empty directory."""
    run(BACK_UP, live)
    shutil.copytree(live / "mlruns", live / "backup" / "mlruns")
    shutil.move(live / "backup", directory)
    shutil.rmtree(live)
    return directory


def test_a_backup_restored_to_the_same_path_serves_the_same_version(live: Path, tmp_path: Path) -> None:
    before = served_from(live, tmp_path / "cache")
    restored(live, tmp_path / "elsewhere").rename(live)
    assert served_from(live, tmp_path / "empty") == before


def test_a_backup_restored_to_another_path_serves_the_same_version_once_the_paths_are_changed(
    live: Path, tmp_path: Path
) -> None:
    before, bundle = served_from(live, tmp_path / "cache")
    elsewhere = restored(live, tmp_path / "elsewhere")
    with pytest.raises(BundleFileMissing, match="No such artifact"):
        served_from(elsewhere, tmp_path / "empty")
    changed = CHANGE_PATHS.replace("/srv/mlflow/", f"{live}/").replace("/srv/restored/", f"{elsewhere}/")
    run(changed, elsewhere)
    after, found = served_from(elsewhere, tmp_path / "empty")
    assert (found, after.version, after.stage, after.tags) == (bundle, before.version, before.stage, before.tags)


def test_a_restored_file_that_differs_is_rejected(live: Path, tmp_path: Path) -> None:
    restored(live, tmp_path / "elsewhere").rename(live)
    for graph in live.rglob("model.onnx"):
        graph.write_bytes(b"damaged")
    with pytest.raises(DigestMismatch):
        served_from(live, tmp_path / "empty")
