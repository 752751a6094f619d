"""The model registry: the one file that knows `models:/`.

    resolve("models:/cartpole-ppo/Production")  ->  ModelVersion, pinned to its number
    fetch(version, cache_dir)                   ->  Bundle, verified against the digests in the registry

MLflow is imported when the first call needs it: it takes two seconds.
"""

import errno
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from serving.policy.policy import BUNDLE_FILES, Bundle
from serving.registry.cache import BundleCache
from serving.registry.errors import BundleFileMissing, ModelUnknown, RegistryFailed, VersionMissing
from serving.registry.model_uri import Reference
from serving.registry.tracking import absolute_uri, check_tracking_server

__all__ = ["ModelVersion", "check_tracking_server", "default_cache_dir", "fetch", "poll", "resolve"]

logger = logging.getLogger(__name__)

DIGEST_TAG = "sha256."
"""A version's tag `sha256.<file>` holds the hex digest of that file of its bundle."""


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model. The number is pinned: it never means another version."""

    uri: str
    """The URI that was asked for, which may mean another version tomorrow."""
    name: str
    version: int
    run_id: str | None
    stage: str
    """The stage that the version stood in when it was resolved, "None" without one."""
    tags: Mapping[str, str] = field(repr=False)
    registry: str = field(repr=False)
    """The URI of the registry that answered."""

    @property
    def digests(self) -> dict[str, str]:
        """The sha256 of each file, by file name, as the registry keeps them."""
        return {key.removeprefix(DIGEST_TAG): tag for key, tag in self.tags.items() if key.startswith(DIGEST_TAG)}

    @property
    def evaluation(self) -> dict[str, float]:
        """The figures of the evaluation, such as `return_mean`; empty before there was one."""
        return {
            key.removeprefix("evaluation."): float(tag)
            for key, tag in self.tags.items()
            if key.startswith("evaluation.") and _is_number(tag)
        }

    @property
    def pinned_uri(self) -> str:
        """The URI that means this version for good."""
        return f"models:/{self.name}/{self.version}"


def resolve(model_uri: str) -> ModelVersion:
    """Ask the registry which version `model_uri` means now.

    Of several versions in a stage it is the one with the highest number, as for MLflow, with a warning.

    Raises:
        ModelUriInvalid: the URI names no registered model.
        ModelUnknown: no model of that name is registered.
        VersionMissing: no such version, or none in the stage, or none with the alias.
        RegistryFailed: MLflow failed.
    """
    reference = Reference.parse(model_uri)
    with _registry_errors():
        found = _find(reference)
        if found is None:
            raise _missing(reference)
    if reference.stage is not None:
        _warn_if_several(reference, int(found.version))
    return _pinned(model_uri, found)


def poll(model_uri: str) -> ModelVersion:
    """Ask which version `model_uri` means now, in one call: no warning, and no list of what there is instead.

    Raises as `resolve`.
    """
    reference = Reference.parse(model_uri)
    with _registry_errors():
        found = _find(reference)
    if found is None:
        raise VersionMissing(reference.name, *_request(reference), None)
    return _pinned(model_uri, found)


def _pinned(model_uri: str, found: Any) -> ModelVersion:
    return ModelVersion(
        uri=model_uri,
        name=found.name,
        version=int(found.version),
        run_id=found.run_id or None,
        stage=found.current_stage,
        tags=dict(found.tags),
        registry=_registry_uri(),
    )


def fetch(version: ModelVersion, cache_dir: str | Path | None = None) -> Bundle:
    """Return the version's bundle, downloaded into the cache unless it is there, verified in both cases.

    Args:
        version: what `resolve` returned.
        cache_dir: where bundles are kept; default `default_cache_dir()`.

    Raises:
        DigestMissing, DigestMismatch: the registry doesn't vouch for the files, or vouches for others.
        BundleFileMissing: the artifact store doesn't have them.
        CacheUnwritable: the cache directory cannot be written.
    """
    cache = BundleCache(Path(cache_dir or default_cache_dir()), version.registry, cache_key(version))
    return cache.bundle(version.name, version.version, version.digests, lambda directory: _download(version, directory))


def cache_key(version: ModelVersion) -> str:
    """Return the name of a version's place in the cache."""
    return f"{quote(version.name, safe='')}/{version.version}"


def default_cache_dir() -> Path:
    """Return the user's cache directory for bundles, `$XDG_CACHE_HOME/policy-bundles`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "policy-bundles"


def _download(version: ModelVersion, directory: Path) -> None:
    from mlflow.artifacts import download_artifacts

    for file in BUNDLE_FILES:
        try:
            with _quiet():
                # With dst_path always: without it a local store hands out, and writes into, its own folder.
                download_artifacts(artifact_uri=f"{version.pinned_uri}/{file}", dst_path=str(directory))
        except Exception as error:  # every artifact store raises its own
            _raise_if_local(error)
            raise BundleFileMissing(file, version.pinned_uri, _last_line(error)) from error


def _raise_if_local(error: Exception) -> None:
    """Raise OSError if the fault lies in where the files go to: MLflow wraps it like all those of the store."""
    for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        if os.strerror(number) in str(error):
            raise OSError(number, os.strerror(number)) from error


# --- MLflow's client ----------------------------------------------------------------------------


def _client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient()


def _registry_uri() -> str:
    import mlflow

    return absolute_uri(mlflow.get_registry_uri())


def _find(reference: Reference) -> Any | None:
    """Return MLflow's model version for the reference, None where there is none. Raises MlflowException."""
    from mlflow.exceptions import MlflowException

    try:
        return _ask(_client(), reference)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _ask(client: Any, reference: Reference) -> Any | None:
    if reference.alias is not None:
        return client.get_model_version_by_alias(reference.name, reference.alias)
    if reference.number is not None:
        return client.get_model_version(reference.name, str(reference.number))
    if reference.stage is None:
        return next(iter(_versions(reference.name)), None)
    with _quiet():
        return next(iter(client.get_latest_versions(reference.name, [reference.stage])), None)


def _versions(name: str) -> list[Any]:
    """Return all versions of a model, the newest first."""
    escaped = name.replace("'", "''")
    found = _client().search_model_versions(f"name='{escaped}'")
    return sorted(found, key=lambda version: -int(version.version))


def _warn_if_several(reference: Reference, chosen: int) -> None:
    numbers = [
        int(version.version) for version in _versions(reference.name) if version.current_stage == reference.stage
    ]
    if len(numbers) > 1:
        logger.warning(
            "versions %s of '%s' all stand in stage '%s'; MLflow takes the highest, %d. Leave one: "
            "python -m pipeline promote VERSION",
            ", ".join(map(str, sorted(numbers))),
            reference.name,
            reference.stage,
            chosen,
        )


def _missing(reference: Reference) -> Exception:
    """Return the error that says why there is no such version, and what to do."""
    versions = _versions(reference.name)
    if not versions:
        names = [model.name for model in _client().search_registered_models(max_results=100)]
        if reference.name not in names:
            return ModelUnknown(reference.name, _registry_uri(), names)
    described = [f"{version.version} ({version.current_stage})" for version in versions[:20]]
    asked, remedy = _request(reference)
    return VersionMissing(reference.name, asked, remedy, described)


def _request(reference: Reference) -> tuple[str, str]:
    """Return how the version was asked for, and what to do when there is none."""
    if reference.stage is not None:
        option = "" if reference.stage == "Production" else f" --stage {reference.stage}"
        promote = f"Promote one: python -m pipeline promote VERSION{option}, or in the MLflow UI."
        return f"is in stage '{reference.stage}'", promote
    if reference.alias is not None:
        return f"has the alias '{reference.alias}'", "Set it on one in the MLflow UI."
    if reference.number is not None:
        return f"has the number {reference.number}", "Choose one there is."
    return "is registered", "Train one: python -m pipeline train."


@contextmanager
def _registry_errors() -> Iterator[None]:
    """Turn MLflow's exceptions into RegistryFailed."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise RegistryFailed(_registry_uri(), _first_line(error)) from error


def _last_line(error: Exception) -> str:
    """Return the line of MLflow's account of a failed download that says why, after those that say where."""
    return next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)[:300]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the notice that stages are deprecated: that they are our users' choice is settled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
