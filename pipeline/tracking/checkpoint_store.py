"""Checkpoints of a run in its MLflow artifacts: each whole or not there, and a bounded number of them.

A checkpoint is an archive, `checkpoints/<environment steps>.tar`, and a manifest of the same name in JSON with the
archive's digest, uploaded after it. What has no manifest, or another digest, was not uploaded whole and counts as
absent.
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


def pack(directory: Path, env_steps: int) -> Path:
    """Archive the content of a directory, beside it, in the place of an earlier archive of the same directory.

    Args:
        directory: What to archive.
        env_steps: When it was made; the archive says so.

    Returns:
        The archive.
    """
    archive = directory.with_name(f"{directory.name}.tar")
    unfinished = archive.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT, pax_headers={_ENV_STEPS: str(env_steps)}) as tar:
        for child in sorted(directory.iterdir()):
            tar.add(child, arcname=child.name)
    return unfinished.replace(archive)


def upload(run_id: str, archive: Path) -> None:
    """Upload an archive, then its manifest, and remove the checkpoints beyond those that are kept."""
    client = mlflow.MlflowClient()
    with tempfile.TemporaryDirectory(dir=archive.parent) as directory:
        snapshot = Path(directory, "archive")
        snapshot.hardlink_to(archive)  # `pack` may put a newer one in its place at any time
        with tarfile.open(snapshot) as tar:
            env_steps = int(tar.pax_headers[_ENV_STEPS])
        archived = snapshot.rename(snapshot.with_name(f"{env_steps:012d}.tar"))
        client.log_artifact(run_id, str(archived), _FOLDER)
        manifest = archived.with_suffix(".json")
        size = archived.stat().st_size
        manifest.write_text(json.dumps({_ENV_STEPS: env_steps, "sha256": _sha256(archived), "bytes": size}))
        client.log_artifact(run_id, str(manifest), _FOLDER)
    _remove_old(run_id)


def newest(run_id: str, directory: Path) -> int:
    """Unpack the newest checkpoint that is whole.

    Args:
        run_id: Whose.
        directory: Receives its content.

    Returns:
        The environment steps that it was made at.

    Raises:
        NoCheckpoint: If the run has none.
    """
    for name in reversed(_names(run_id, ".json")):
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


def _remove_old(run_id: str) -> None:
    names = _names(run_id, ".json")
    oldest_kept = names[-_KEPT:][0]
    repository = get_artifact_repository(mlflow.get_run(run_id).info.artifact_uri)
    # Manifests first: an archive without one is absent, a manifest without its archive is a lie.
    for path in sorted(_files(run_id), key=lambda path: not path.endswith(".json")):
        if Path(path).stem < oldest_kept:
            repository.delete_artifacts(path)  # type: ignore[no-untyped-call]


def _names(run_id: str, suffix: str) -> list[str]:
    """The names of the files with a suffix, the oldest first."""
    return sorted(Path(path).stem for path in _files(run_id) if path.endswith(suffix))


def _files(run_id: str) -> list[str]:
    return [each.path for each in mlflow.MlflowClient().list_artifacts(run_id, _FOLDER)]


def _download(run_id: str, file: str, directory: str) -> Path:
    return Path(mlflow.MlflowClient().download_artifacts(run_id, f"{_FOLDER}/{file}", directory))


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
