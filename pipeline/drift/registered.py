"""Fetches the reference.json of a registered version."""

import hashlib
import tempfile
from pathlib import Path

import mlflow

from pipeline.drift.errors import ReferenceChanged, ReferenceMissing, ReferenceUnavailable
from pipeline.reference.reference import REFERENCE_FILE, Reference
from serving.errors import redacted
from serving.registry.model_version import ModelVersion
from serving.registry.registry import files_uri


def fetch_reference(version: ModelVersion) -> Reference:
    """Download the reference of a version, and verify it against the digest in the registry.

    Raises:
        ReferenceMissing: An earlier release registered the version, without one.
        ReferenceUnavailable: The artifact store does not have the file, or does not answer.
        ReferenceChanged: It is not the file that was registered.
        ReferenceUnreadable: It is of a format of another release.
    """
    expected = version.digests.get(REFERENCE_FILE)
    if expected is None:
        raise ReferenceMissing(version.name, version.version)
    with tempfile.TemporaryDirectory() as directory:
        try:
            file = mlflow.artifacts.download_artifacts(f"{files_uri(version)}/{REFERENCE_FILE}", dst_path=directory)
            content = Path(file).read_bytes()
        except Exception as error:  # each artifact store raises exceptions of its own
            reason = redacted(str(error)).strip().splitlines()
            raise ReferenceUnavailable(
                version.name, version.version, reason[-1] if reason else type(error).__name__
            ) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise ReferenceChanged(version.name, version.version)
    return Reference.from_bytes(content)
