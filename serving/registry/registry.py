"""Resolves `models:/` URIs in MLflow's model registry and fetches the bundles of versions.

    resolve("models:/cartpole-ppo/Production")  ->  ModelVersion, pinned to its number
    fetch(version, cache_dir)                   ->  Bundle, verified against the digests in the registry

The functions import MLflow themselves, because the import takes two seconds.
"""

import errno
import logging
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving.errors import redacted
from serving.experiments.experiment import without_leases
from serving.policy.bundle import BUNDLE_FILES, Bundle
from serving.policy.errors import BundleFileMissing
from serving.registry.cache import BundleCache
from serving.registry.errors import CacheUnwritable, ModelUnknown, VersionMissing
from serving.registry.mlflow_api import as_expected, is_http_failure, mlflow_errors, why_unreachable
from serving.registry.model_uri import ModelUri
from serving.registry.model_version import ModelVersion, warn_once
from serving.registry.tracking import (
    absolute_uri,
    check_artifact_uri,
    import_mlflow,
    is_remote,
    require_database,
    stage_warnings_ignored,
)

logger = logging.getLogger(__name__)


def resolve(model_uri: str) -> ModelVersion:
    """Return the version that `model_uri` refers to now.

    If several versions are in a stage, it is the one with the highest number, as in MLflow, and a warning is logged.

    Raises:
        ModelUriInvalid: the URI is not that of a registered model.
        ModelUnknown: no model of that name is registered.
        VersionMissing: there is no such version, none in the stage, or none with the alias.
        RegistryFailed: MLflow failed.
    """
    uri = ModelUri.parse(model_uri)
    with _registry_errors():
        found = _find(uri)
        if found is None:
            raise _missing(uri)
        if uri.stage is not None:
            _warn_if_several(uri, int(found.version))
        return _with_challenger(_pinned(model_uri, found))


def poll(model_uri: str) -> ModelVersion:
    """Return the version that `model_uri` refers to now, in one call to the registry, two during an experiment.

    There is no warning, and the message of VersionMissing does not list the existing versions. Otherwise it raises
    the errors of `resolve`.
    """
    uri = ModelUri.parse(model_uri)
    import_mlflow()
    require_database(_registry_uri())
    with _registry_errors():
        found = _find(uri)
        if found is None:
            raise VersionMissing(uri.name, *_describe_request(uri))
        return _with_challenger(_pinned(model_uri, found))


def _with_challenger(version: ModelVersion) -> ModelVersion:
    """Return the version with the challenger of its running experiment, if it has one. Raises MlflowException."""
    experiment = version.experiment
    if experiment is None or not experiment.is_running_at(time.time()):
        return version
    challenger = _find(ModelUri(version.name, number=experiment.challenger))
    if challenger is None:
        warn_once(f"the challenger of the experiment {experiment.id}, version {experiment.challenger}, is gone")
        return version
    return replace(version, challenger=_pinned(f"models:/{version.name}/{experiment.challenger}", challenger))


def _pinned(model_uri: str, found: Any) -> ModelVersion:
    return ModelVersion(
        uri=model_uri,
        name=found.name,
        version=int(found.version),
        run_id=found.run_id or None,
        stage=found.current_stage,
        tags=without_leases(found.tags),
        registry=redacted(_registry_uri()),
    )


def versions_of(name: str) -> list[Any]:
    """Return all versions of a model, as MLflow describes them, the newest first. Raises MlflowException."""
    from mlflow import MlflowClient

    quote = '"' if "'" in name else "'"  # MLflow's filters have no escape
    found = MlflowClient().search_model_versions(f"name={quote}{name}{quote}")
    return sorted(found, key=lambda version: -int(version.version))


def fetch(version: ModelVersion, cache_dir: str | Path | None = None) -> Bundle:
    """Return the version's verified bundle, and download it into the cache if it is not there.

    Args:
        version: a version that `resolve` or `poll` returned.
        cache_dir: the directory of the bundle cache; default `default_cache_dir()`.

    Raises:
        DigestMissing, DigestMismatch: the registry has no digest of a file, or the digest of another file.
        BundleFileMissing: the artifact store does not have a file.
        CacheUnwritable: the cache directory cannot be written.
    """
    return BundleCache(Path(cache_dir or default_cache_dir())).bundle(version, download)


def files_uri(version: ModelVersion) -> str:
    """Return the URI of the version's files in MLflow, to which `/` and a path can be appended.

    Of a `models:/` URI with a path, MLflow ignores what follows a `#` or `?` in the name.
    """
    if not {"#", "?"} & set(version.name):
        return version.pinned_uri
    from mlflow import MlflowClient

    uri: str = MlflowClient().get_model_version_download_uri(version.name, str(version.version))
    return uri


def default_cache_dir() -> Path:
    """Return the default directory of the bundle cache, `$XDG_CACHE_HOME/policy-bundles`.

    As the XDG Base Directory Specification demands, a relative `$XDG_CACHE_HOME` is ignored: the processes of a server
    have different working directories.

    Raises:
        CacheUnwritable: the user has no home directory, as in a container that runs under an arbitrary user id.
    """
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (chosen if chosen.is_absolute() else Path.home() / ".cache") / "policy-bundles"
    except RuntimeError as error:
        raise CacheUnwritable("~/.cache", "this user has no home directory") from error


def download(version: ModelVersion, directory: Path) -> None:
    """Write the version's files into a directory, unverified.

    Raises:
        BundleFileMissing: the artifact store does not have a file.
        OSError: the disk is full, or cannot be written.
    """
    from mlflow.artifacts import download_artifacts

    require_database(_registry_uri())
    for file in BUNDLE_FILES:
        try:
            with stage_warnings_ignored():
                # Without dst_path, a local store returns its own folder and writes into it.
                download_artifacts(artifact_uri=f"{files_uri(version)}/{file}", dst_path=str(directory))
        except Exception as error:  # each artifact store raises exceptions of its own
            _raise_if_local(error)
            if isinstance(error, ImportError) and (missing := as_expected(error, _registry_uri())):
                raise missing from error
            _raise_if_behind_server(version)
            reason = why_unreachable(error) if is_http_failure(error) else _last_line(error)
            raise BundleFileMissing(file, version.pinned_uri, reason) from error


def _raise_if_local(error: Exception) -> None:
    """Raise OSError if the local disk caused the error. MLflow wraps it like the errors of the artifact store."""
    for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        if os.strerror(number) in str(error):
            raise OSError(number, os.strerror(number)) from error


def _raise_if_behind_server(version: ModelVersion) -> None:
    from mlflow import MlflowClient

    if not is_remote(_registry_uri()):  # so that this is no further request to a server that has just failed
        with _registry_errors():
            uri = MlflowClient().get_model_version_download_uri(version.name, str(version.version))
        check_artifact_uri(uri)


def _registry_uri() -> str:
    import mlflow

    return absolute_uri(mlflow.get_registry_uri())


def _find(uri: ModelUri) -> Any | None:
    """Return MLflow's model version for the URI, None if it does not exist. Raises MlflowException."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    try:
        if uri.alias is not None:
            return client.get_model_version_by_alias(uri.name, uri.alias)
        if uri.number is not None:
            return client.get_model_version(uri.name, str(uri.number))
        with stage_warnings_ignored():
            found = client.get_latest_versions(uri.name, [uri.stage]) if uri.stage else versions_of(uri.name)
        return next(iter(found), None)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _warn_if_several(uri: ModelUri, chosen: int) -> None:
    numbers = [int(version.version) for version in versions_of(uri.name) if version.current_stage == uri.stage]
    if len(numbers) > 1:
        logger.warning(
            "versions %s of '%s' are all in stage '%s'; MLflow resolves the stage to the highest, %d. "
            "Keep only one: %s",
            ", ".join(map(str, sorted(numbers))),
            uri.name,
            uri.stage,
            chosen,
            _promote(uri),
        )


def _missing(uri: ModelUri) -> Exception:
    """Return the error for a version that does not exist, with what to do about it."""
    from mlflow import MlflowClient

    versions = versions_of(uri.name)
    if not versions:
        names = [model.name for model in MlflowClient().search_registered_models(max_results=100)]
        if uri.name not in names:
            _require_readable(uri.name)
            return ModelUnknown(uri.name, _registry_uri(), ", ".join(f"'{name}'" for name in names) or "none yet")
    described = ", ".join(f"{version.version} ({version.current_stage})" for version in versions[:20]) or "none"
    criterion, remedy = _describe_request(uri)
    return VersionMissing(uri.name, criterion, f"{remedy} Versions: {described}.")


def _require_readable(name: str) -> None:
    """Raise AccessDenied if the account may not read a model: searches leave it out without a word."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        MlflowClient().get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise


def _describe_request(uri: ModelUri) -> tuple[str, str]:
    """Return the fields `criterion` and `remedy` of VersionMissing."""
    if uri.stage is not None:
        return f"is in stage '{uri.stage}'", f"Promote one: {_promote(uri)}, or in the MLflow UI."
    if uri.alias is not None:
        return f"has the alias '{uri.alias}'", f"Set it: {_promote(uri)}, or in the MLflow UI."
    if uri.number is not None:
        return f"has the number {uri.number}", "Choose an existing one."
    return "is registered", "Train one: python -m pipeline train."


def _promote(uri: ModelUri) -> str:
    """Return the command that assigns a version to the stage or alias of the URI."""
    command = f"python -m pipeline promote VERSION --name {shlex.quote(uri.name)}"
    if uri.alias is not None:
        return f"{command} --alias {shlex.quote(uri.alias)}"
    return command if uri.stage == "Production" else f"{command} --stage {uri.stage}"


@contextmanager
def _registry_errors() -> Iterator[None]:
    """Raise MLflow's exceptions as those of this room."""
    with mlflow_errors(_registry_uri()):
        yield


def _last_line(error: Exception) -> str:
    """Return the last line of the message, in which MLflow puts the cause of a failed download."""
    lines = redacted(str(error)).splitlines()  # before they are cut, which may leave the half of a URL
    return next((line for line in reversed(lines) if line.strip()), type(error).__name__)[:300]
