"""Stores the checkpoints of a run as MLflow artifacts: each one is complete or ignored, and only the newest stay.

A checkpoint that MLflow did not take when the command ended is kept as a file in the working directory.

A checkpoint is an archive, `checkpoints/<environment steps>.tar`, and a JSON manifest of the same name with the
archive's digest, uploaded after it. An archive without a manifest, or with another digest, is incomplete. A tag of the
run holds the digests of the newest archives too: whoever writes to the artifact store cannot write tags, and an archive
consists of pickles, which run code when they are read.
"""

import hashlib
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pipeline.bundle.errors import CheckpointChanged, CheckpointDigestMissing
from pipeline.tracking.errors import NoCheckpoint, TrackingRefused
from pipeline.tracking.outages import Notify, is_failure, is_refusal, reason_of

_FOLDER = "checkpoints"
_ENV_STEPS = "env_steps"

#: Checkpoints that a run keeps: the newest, and the one before it.
_KEPT = 2

#: The tag of a run with the digests of its newest archives, a JSON object by file name.
DIGESTS_TAG = "checkpoints.sha256"

#: The environment steps of the newest checkpoint that this process has uploaded, by run.
_uploaded: dict[str, int] = {}

#: The runs whose store refuses deletions.
_undeletable: set[str] = set()


def pack(directory: Path, archive: Path, env_steps: int) -> None:
    """Write a checkpoint's directory, and the environment steps at which it was made, into an archive file.

    The archive replaces an earlier one at once.
    """
    unfinished = archive.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT, pax_headers={_ENV_STEPS: str(env_steps)}) as tar:
        for child in sorted(directory.iterdir()):
            tar.add(child, arcname=child.name)
    unfinished.replace(archive)


def upload(run_id: str, archive: Path, notify: Notify) -> None:
    """Upload an archive that `pack` wrote, and then its manifest, and delete the older checkpoints of the run.

    `notify` receives one line per run if the artifact store refuses to delete.

    Raises:
        TrackingRefused: If MLflow, the store or a proxy before them refuses the archive.
        Exception: If they fail.
    """
    client = mlflow.MlflowClient()
    with tempfile.TemporaryDirectory(dir=archive.parent) as directory:
        snapshot = Path(directory, "archive")
        snapshot.hardlink_to(archive)  # `pack` may replace the archive at any time
        env_steps = packed_env_steps(snapshot)
        archived = snapshot.rename(snapshot.with_name(f"{env_steps:012d}.tar"))
        manifest = archived.with_suffix(".json")
        size = archived.stat().st_size
        digest = _sha256(archived)
        manifest.write_text(json.dumps({_ENV_STEPS: env_steps, "sha256": digest, "bytes": size}))
        try:
            client.log_artifact(run_id, str(archived), _FOLDER)
            newest = sorted({**_recorded_digests(run_id), archived.name: digest}.items())[-_KEPT:]
            client.set_tag(run_id, DIGESTS_TAG, json.dumps(dict(newest)))
            client.log_artifact(run_id, str(manifest), _FOLDER)
        except Exception as error:
            if is_refusal(error):
                what = f"the checkpoint of {env_steps:,} steps, {size:,} bytes"
                raise TrackingRefused(what, reason_of(error)) from error
            raise
    _uploaded[run_id] = env_steps
    _delete_old(run_id, notify)


def packed_env_steps(archive: Path) -> int:
    """Return the environment steps at which the checkpoint in an archive was made."""
    with tarfile.open(archive) as tar:
        return int(tar.pax_headers[_ENV_STEPS])


def secure(run_id: str, archive: Path) -> str:
    """Copy an archive that this process has not uploaded to the working directory, where `restore_newest` finds it.

    Returns:
        Where the checkpoint is now, for the user.
    """
    env_steps = packed_env_steps(archive)
    if _uploaded.get(run_id) == env_steps:
        return f"of {env_steps:,} steps, is in MLflow"
    kept = _kept(run_id)
    try:
        shutil.copyfile(archive, kept)
    except OSError as error:
        return f"of {env_steps:,} steps, is lost: it was not uploaded, and cannot be kept: {error}"
    return f"of {env_steps:,} steps, was not uploaded. Resume where it is: {kept}"


def restore_newest(run_id: str, directory: Path, *, trusted: bool = False) -> int:
    """Unpack the newest complete checkpoint of a run into a directory, and return its environment steps.

    It is the newest in MLflow, or a newer one that `secure` copied to the working directory, which is a file of the
    user's. With `trusted`, a run without any digests in its tags is accepted.

    Raises:
        NoCheckpoint: If the run has none.
        CheckpointDigestMissing: If the run has no digests, and it is not `trusted`; nothing was unpacked.
        CheckpointChanged: If the archive and its manifest were replaced or added; nothing was unpacked.
    """
    kept, manifests, recorded = _kept(run_id), _manifests(run_id), _recorded_digests(run_id)
    if kept.exists() and (not manifests or packed_env_steps(kept) > int(manifests[-1])):
        return _unpack(kept, directory)
    for name in reversed(manifests):
        with tempfile.TemporaryDirectory() as downloads:
            manifest = json.loads(_download(run_id, f"{name}.json", downloads).read_bytes())
            if f"{_FOLDER}/{name}.tar" not in _files(run_id):
                continue
            archive = _download(run_id, f"{name}.tar", downloads)
            digest = _sha256(archive)
            if digest == manifest["sha256"]:
                if not recorded and not trusted:
                    raise CheckpointDigestMissing(f"Run {run_id}")
                if recorded and recorded.get(archive.name) != digest:
                    raise CheckpointChanged(f"{_FOLDER}/{archive.name}", f"run {run_id}")
                return _unpack(archive, directory)
    raise NoCheckpoint(run_id)


def _kept(run_id: str) -> Path:
    return Path.cwd() / f"checkpoint-{run_id}.tar"


def _recorded_digests(run_id: str) -> dict[str, str]:
    """Return the digests in the run's tag by the names of the archives."""
    digests: dict[str, str] = json.loads(mlflow.get_run(run_id).data.tags.get(DIGESTS_TAG, "{}"))
    return digests


def _unpack(archive: Path, directory: Path) -> int:
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(directory)  # noqa: S202  # its digest is that of the manifest
    return packed_env_steps(archive)


def _delete_old(run_id: str, notify: Notify) -> None:
    """Delete all but the newest checkpoints. If the store fails, later uploads try again; if it refuses, none does."""
    if run_id in _undeletable:
        return
    try:
        oldest_kept = _manifests(run_id)[-_KEPT:][0]
        repository = get_artifact_repository(mlflow.get_run(run_id).info.artifact_uri)
        # Manifests first: an archive without a manifest is ignored, a manifest without its archive would be wrong.
        for path in sorted(_files(run_id), key=lambda path: not path.endswith(".json")):
            if Path(path).stem < oldest_kept:
                repository.delete_artifacts(path)  # type: ignore[no-untyped-call]
    except Exception as error:  # noqa: BLE001  # stores refuse in many ways, and training does not depend on it
        if not is_failure(error):
            _undeletable.add(run_id)
            reason = reason_of(error) if is_refusal(error) else type(error).__name__
            notify(f"The artifact store does not delete old checkpoints ({reason}), so all of this run stay.")


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
