"""The files of a version's checkpoint: their digests at registration, and their verified download.

RLlib's checkpoints consist of pickles, which run code when they are read. A version's file `checkpoint.sha256` lists
the digests of the checkpoint's files, and a tag of the version holds the digest of that list.
"""

import hashlib
from pathlib import Path

import mlflow

from pipeline.bundle.assemble import CHECKPOINT_DIRECTORY
from pipeline.bundle.errors import CheckpointChanged, CheckpointDigestMissing
from serving.integrity.statements import CHECKPOINT_MANIFEST
from serving.policy.bundle import Bundle
from serving.registry.model_version import ModelVersion
from serving.registry.registry import files_uri


def digests(directory: Path) -> dict[str, str]:
    """Return the hex sha256 of each file of an assembled directory that a version's digests cover, by name."""
    manifest = hashlib.sha256(manifest_of(directory / CHECKPOINT_DIRECTORY)).hexdigest()
    return {**Bundle.read(directory).digests, CHECKPOINT_MANIFEST: manifest}


def manifest_of(checkpoint: Path) -> bytes:
    """Return the list of a checkpoint's files and their digests, which `sha256sum --check` reads.

    Raises:
        ValueError: If there is a link, or a file whose name cannot stand in the list.
    """
    lines = []
    for path in sorted(checkpoint.rglob("*")):
        name = path.relative_to(checkpoint).as_posix()
        if path.is_symlink() or not name.isprintable() or "\\" in name:
            raise ValueError(name)
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            lines.append(f"{digest}  {CHECKPOINT_DIRECTORY}/{name}\n")
    return "".join(lines).encode()


def download(version: ModelVersion, directory: Path, *, trusted: bool = False) -> Path:
    """Download the checkpoint of a version into a directory, and return its own directory with unchanged files only.

    Args:
        version: A version that `resolve` returned.
        directory: Receives the checkpoint.
        trusted: Whether to accept the checkpoint of a version without a digest of it.

    Raises:
        CheckpointDigestMissing: If the version has no digest of its checkpoint, and it is not `trusted`.
        CheckpointChanged: If a file was changed, added or removed after the registration.
    """
    expected = version.digests.get(CHECKPOINT_MANIFEST)
    if expected is None and not trusted:
        raise CheckpointDigestMissing(f"Version {version.version} of '{version.name}'")
    source = f"{files_uri(version)}/{CHECKPOINT_DIRECTORY}"
    checkpoint = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(directory)))
    if expected is not None:
        try:
            found = manifest_of(checkpoint)
        except ValueError as error:
            raise _changed(version, f"{CHECKPOINT_DIRECTORY}/{error}") from None
        if hashlib.sha256(found).hexdigest() != expected:
            raise _changed(version, _first_difference(version, found, expected, directory))
    return checkpoint


def _changed(version: ModelVersion, file: str) -> CheckpointChanged:
    return CheckpointChanged(file, f"version {version.version} of '{version.name}'")


def _first_difference(version: ModelVersion, found: bytes, expected: str, directory: Path) -> str:
    """Return the first file that differs from the list of the version, or the list itself if that is not genuine."""
    try:
        file = mlflow.artifacts.download_artifacts(
            f"{files_uri(version)}/{CHECKPOINT_MANIFEST}", dst_path=str(directory)
        )
        registered = Path(file).read_bytes()
    except Exception:  # noqa: BLE001  # each store raises exceptions of its own, and the version is refused anyway
        return CHECKPOINT_MANIFEST
    if hashlib.sha256(registered).hexdigest() != expected:
        return CHECKPOINT_MANIFEST
    lines = set(registered.decode().splitlines()) ^ set(found.decode().splitlines())
    return min(line.partition("  ")[2] for line in lines)
