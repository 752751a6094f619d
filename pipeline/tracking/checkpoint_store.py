"""Stores the checkpoints of a run as MLflow artifacts: each one is complete or ignored, and only the newest stay.

A checkpoint is an archive, `checkpoints/<environment steps>.tar`, and a JSON manifest of the same name with the
archive's digest, uploaded after it. An archive without a manifest, or with another digest, is incomplete.
"""

import hashlib
import json
import tarfile
import tempfile
from pathlib import Path

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pipeline.tracking.errors import NoCheckpoint

_FOLDER = "checkpoints"
_ENV_STEPS = "env_steps"

#: Checkpoints that a run keeps: the newest, and the one before it.
_KEPT = 2


def pack(directory: Path, archive: Path, env_steps: int) -> None:
    """Write a checkpoint's directory, and the environment steps at which it was made, into an archive file.

    The archive replaces an earlier one at once.
    """
    unfinished = archive.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT, pax_headers={_ENV_STEPS: str(env_steps)}) as tar:
        for child in sorted(directory.iterdir()):
            tar.add(child, arcname=child.name)
    unfinished.replace(archive)


def upload(run_id: str, archive: Path) -> None:
    """Upload an archive that `pack` wrote, and then its manifest, and delete the older checkpoints of the run."""
    client = mlflow.MlflowClient()
    with tempfile.TemporaryDirectory(dir=archive.parent) as directory:
        snapshot = Path(directory, "archive")
        snapshot.hardlink_to(archive)  # `pack` may replace the archive at any time
        with tarfile.open(snapshot) as tar:
            env_steps = int(tar.pax_headers[_ENV_STEPS])
        archived = snapshot.rename(snapshot.with_name(f"{env_steps:012d}.tar"))
        client.log_artifact(run_id, str(archived), _FOLDER)
        manifest = archived.with_suffix(".json")
        size = archived.stat().st_size
        manifest.write_text(json.dumps({_ENV_STEPS: env_steps, "sha256": _sha256(archived), "bytes": size}))
        client.log_artifact(run_id, str(manifest), _FOLDER)
    _delete_old(run_id)


def download_newest(run_id: str, directory: Path) -> int:
    """Unpack the newest complete checkpoint of a run into a directory, and return its environment steps.

    Raises:
        NoCheckpoint: If the run has none.
    """
    for name in reversed(_manifests(run_id)):
        with tempfile.TemporaryDirectory() as downloads:
            manifest = json.loads(_download(run_id, f"{name}.json", downloads).read_bytes())
            if f"{_FOLDER}/{name}.tar" not in _files(run_id):
                continue
            archive = _download(run_id, f"{name}.tar", downloads)
            if _sha256(archive) == manifest["sha256"]:
                with tarfile.open(archive) as tar:
                    tar.extractall(directory, filter="data")
                return int(manifest[_ENV_STEPS])
    raise NoCheckpoint(run_id)


def _delete_old(run_id: str) -> None:
    oldest_kept = _manifests(run_id)[-_KEPT:][0]
    repository = get_artifact_repository(mlflow.get_run(run_id).info.artifact_uri)
    # Manifests first: an archive without a manifest is ignored, a manifest without its archive would be wrong.
    for path in sorted(_files(run_id), key=lambda path: not path.endswith(".json")):
        if Path(path).stem < oldest_kept:
            repository.delete_artifacts(path)  # type: ignore[no-untyped-call]


def _manifests(run_id: str) -> list[str]:
    """Return the names of the manifests without their suffix, the oldest first."""
    return sorted(Path(path).stem for path in _files(run_id) if path.endswith(".json"))


def _files(run_id: str) -> list[str]:
    return [each.path for each in mlflow.MlflowClient().list_artifacts(run_id, _FOLDER)]


def _download(run_id: str, file: str, directory: str) -> Path:
    return Path(mlflow.MlflowClient().download_artifacts(run_id, f"{_FOLDER}/{file}", directory))


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
